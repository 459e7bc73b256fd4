from pathlib import Path

import pytest

from glomerulab.errors import PredictionsError, TaxonomyError
from glomerulab.report.overrides import OVERRIDES_FILE, add_override, read_overrides


def test_entries_come_back_with_name_time_and_reason(folder) -> None:
    add_override(
        folder, "b", labels=["cgn", "Segmental sclerosis"], by="Dr Li", reason='"sure"\nso'
    )
    entry = read_overrides(folder)[0]
    assert entry.reading == {"cgn", "fsg"}
    assert (entry.by, entry.reason) == ("Dr Li", '"sure"\nso')
    assert entry.time.endswith("+00:00")


def test_a_second_entry_leaves_the_first_where_it_was(folder) -> None:
    add_override(folder, "b", labels=["cgn"], by="A", reason="x")
    before = (folder.folder / OVERRIDES_FILE).read_bytes()
    add_override(folder, "b", labels=["not_a_glomerulus"], by="B", reason="y")
    assert (folder.folder / OVERRIDES_FILE).read_bytes().startswith(before)
    assert [entry.reading for entry in read_overrides(folder)] == [{"cgn"}, None]


@pytest.mark.parametrize(
    ("image", "labels", "by", "reason", "error", "message"),
    [
        ("nobody", ["cgn"], "A", "x", PredictionsError, "no image 'nobody'"),
        ("b", ["cgn", "normal"], "A", "x", PredictionsError, "exclude each other"),
        ("b", ["tumour"], "A", "x", TaxonomyError, "unknown label"),
        ("b", [], "A", "x", PredictionsError, "no label"),
        ("b", ["cgn"], " ", "x", PredictionsError, "name"),
        ("b", ["cgn"], "A", "", PredictionsError, "reason"),
    ],
)
def test_what_says_nothing_is_refused_and_not_written(
    folder, image, labels, by, reason, error, message
) -> None:
    with pytest.raises(error, match=message):
        add_override(folder, image, labels=labels, by=by, reason=reason)
    assert not (folder.folder / OVERRIDES_FILE).exists()


def test_a_damaged_file_is_named_and_not_written_to(folder) -> None:
    path: Path = folder.folder / OVERRIDES_FILE
    path.write_text("time,by,image_id,labels,reason\n2026,A,b\n")
    with pytest.raises(PredictionsError, match="entry 2"):
        add_override(folder, "b", labels=["cgn"], by="A", reason="x")
    assert path.read_text().count("\n") == 2
