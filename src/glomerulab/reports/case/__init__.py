"""The report of a case: HTML, PDF, CSV, GeoJSON, FHIR, DICOM SR."""
