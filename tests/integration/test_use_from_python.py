import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "use-from-python.md"


def test_the_page_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        # Blank lines before the code give tracebacks the line numbers of the page.
        code = "\n" * text.count("\n", 0, block.start(1)) + block.group(1)
        exec(compile(code, str(PAGE), "exec"), names)
    assert names["logits"].shape == (2, 4)
    assert set(names["decision"].probabilities) == set(names["cohort"].taxonomy.label_ids)
    assert names["case"].summary.n_glomeruli == 3
    assert all(path.is_file() for path in names["reports"].paths)
