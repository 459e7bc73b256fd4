"""Apply a trained model: from slides or crops to a case folder."""
