"""What was found in a patient: calls, counts, grades, corrections, and the case folder."""
