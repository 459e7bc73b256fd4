from glomerulab.apps.annotation.store.schema import metadata


def test_every_table_of_one_row_per_thing_has_a_key() -> None:
    assert all(table.primary_key.columns for table in metadata.tables.values())


def test_what_is_assigned_once_can_be_assigned_only_once() -> None:
    unique = {
        tuple(column.name for column in constraint.columns)
        for constraint in metadata.tables["assignment"].constraints
    }
    assert ("account_id", "image_id", "purpose") in unique
    assert ("account_id", "position") in unique
