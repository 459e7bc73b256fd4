"""A trained model over HTTP: crops in one request, slides as jobs."""
