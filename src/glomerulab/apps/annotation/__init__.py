"""The annotation program: several people label images, blinded, with an audit ledger."""
