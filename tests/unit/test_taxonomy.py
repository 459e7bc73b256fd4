from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glomerulab.errors import TaxonomyError
from glomerulab.taxonomy import (
    BUILT_IN_TAXONOMIES,
    Label,
    Taxonomy,
    load_taxonomy,
    write_taxonomy,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_paper_has_its_four_labels_in_order() -> None:
    paper = load_taxonomy("paper")
    assert paper.label_ids == ("normal", "mspgn", "fsg", "cgn")
    assert [label.name_zh for label in paper.labels] == [
        "正常肾小球",
        "系膜细胞增生",
        "节段性硬化",
        "新月体形成",
    ]
    assert [label.hpo for label in paper.labels] == [
        None,
        "HP:0012574",
        "HP:0033495",
        "HP:0033316",
    ]


def test_normal_excludes_every_lesion_and_lesions_may_occur_together() -> None:
    paper = load_taxonomy("paper")
    assert paper.conflicts({"normal": 1, "mspgn": 0, "fsg": 1, "cgn": None}) == [("normal", "fsg")]
    assert paper.conflicts({"normal": 0, "fsg": 1, "cgn": 1}) == []
    assert paper.conflicts({"normal": None, "fsg": 1}) == []


def test_exclusions_are_a_symmetric_table() -> None:
    table = load_taxonomy("paper").exclusions
    assert table.tolist() == [
        [False, True, True, True],
        [True, False, False, False],
        [True, False, False, False],
        [True, False, False, False],
    ]


def test_an_exclusion_holds_whichever_side_names_it() -> None:
    taxonomy = Taxonomy("t", (Label(id="a", name="A"), Label(id="b", name="B", excludes=("a",))))
    assert taxonomy.conflicts({"a": 1, "b": 1}) == [("a", "b")]


@pytest.mark.parametrize("name", ["cgn", "CGN", " Crescent ", "新月体形成"])
def test_a_label_is_found_by_id_and_by_either_name(name: str) -> None:
    assert load_taxonomy("paper").find(name).id == "cgn"


def test_an_unknown_label_lists_the_known_ones() -> None:
    with pytest.raises(TaxonomyError, match=r"unknown label 'x' .*normal, mspgn, fsg"):
        load_taxonomy("paper").find("x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = 'x'\nlabels = []", "labels must"),
        ("name = 'x'\n[[labels]]\nid='a'\nname='A'\n", "labels must"),
        ("name = 'x'\ncolour = 1\n[[labels]]\nid='a'\nname='A'\n", "colour|labels"),
        ("[[labels]]\nid='A b'\nname='A'\n[[labels]]\nid='b'\nname='B'\n", "name is missing"),
        ("name='x'\n[[labels]]\nid='a'\nname='A'\nhpo='12'\n[[labels]]\nid='b'\nname='B'", "hpo"),
        ("name='x'\n[[labels]]\nid='a'\nname='A'\n[[labels]]\nid='a'\nname='B'\n", "given twice"),
        (
            "name='x'\n[[labels]]\nid='a'\nname='A'\nexcludes=['z']\n[[labels]]\nid='b'\nname='B'",
            "label 'a' excludes unknown labels: z",
        ),
        ("name = ", "not valid TOML"),
    ],
)
def test_a_taxonomy_that_breaks_a_rule_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "t.toml"
    path.write_text(text)
    with pytest.raises(TaxonomyError, match=reason):
        load_taxonomy(path)


def test_a_missing_taxonomy_names_the_built_in_ones(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"none\.toml: .*paper"):
        load_taxonomy(tmp_path / "none.toml")


def test_a_taxonomy_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.toml"
    path.write_bytes("name = '肾'".encode("gbk"))
    with pytest.raises(TaxonomyError, match="not text in UTF-8"):
        load_taxonomy(path)


IDS = st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,6}", fullmatch=True), min_size=2, unique=True)


@given(ids=IDS, data=st.data())
def test_a_taxonomy_reads_back_as_it_was_written(
    ids: list[str], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = st.text(st.characters(blacklist_categories=("Cs",)), max_size=9)
    labels = tuple(
        Label(
            id=label_id,
            name=data.draw(text),
            name_zh=data.draw(st.none() | text),
            hpo=data.draw(st.none() | st.just("HP:0012574")),
            excludes=tuple(data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=2))),
        )
        for label_id in ids
    )
    path = tmp_path_factory.mktemp("t") / "t.toml"
    write_taxonomy(Taxonomy("任务", labels), path)
    assert load_taxonomy(path) == Taxonomy("任务", labels)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "taxonomies").glob("*.toml")))
def test_the_example_taxonomies_can_be_read(path: Path) -> None:
    assert load_taxonomy(path).name == path.stem


def test_every_built_in_name_can_be_read() -> None:
    assert [load_taxonomy(name).name for name in BUILT_IN_TAXONOMIES] == list(BUILT_IN_TAXONOMIES)
