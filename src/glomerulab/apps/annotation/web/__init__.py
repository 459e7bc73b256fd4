"""The annotation program's pages: what a browser asks for, answered from the store."""
