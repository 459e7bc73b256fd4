"""English and Chinese: one catalogue for pages, reports, figures and notes."""
