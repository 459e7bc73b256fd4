"""The report of a run: evaluation page, figures, tables, checklists, comparison."""
