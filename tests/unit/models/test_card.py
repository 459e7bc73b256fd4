import subprocess
import sys

from glomerulab.models.card import ModelCard
from glomerulab.taxonomy import load_taxonomy


def test_the_taxonomy_has_the_order_of_the_logits() -> None:
    labels = load_taxonomy("paper").labels
    card = ModelCard(
        model="resnet50",
        taxonomy_name="paper",
        labels=labels,
        input_size=224,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )
    assert card.taxonomy.label_ids == ("normal", "mspgn", "fsg", "cgn")


def test_a_card_is_read_without_torch() -> None:
    code = "import sys, glomerulab.models.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
