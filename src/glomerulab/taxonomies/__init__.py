"""Built-in taxonomies as TOML files; read through `glomerulab.taxonomy`."""
