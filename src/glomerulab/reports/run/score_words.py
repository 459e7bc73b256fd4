"""How numbers and scores are said: the same words in tables, headline, figures and files."""

import math

__all__ = ["NOT_DEFINED", "SCORE_WORDS", "percent", "rounded", "score_words"]

NOT_DEFINED = "not defined"
NO_BREAK_SPACE = "\N{NO-BREAK SPACE}"

SCORE_WORDS = {
    "accuracy": ("Accuracy", "share of images called right"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall, each class counting the same"),
    "exact_match": ("Exact match", "share of images with every label right"),
    "label_accuracy": ("Label accuracy", "share of single label calls that are right"),
    "precision": ("Precision", "of those called so, the share that are"),
    "recall": ("Recall", "sensitivity: of those that are so, the share found"),
    "specificity": ("Specificity", "of those that are not so, the share left alone"),
    "f1": ("F1", "harmonic mean of precision and recall"),
    "mcc": ("MCC", "Matthews correlation: 0 is chance, 1 perfect"),
    "kappa": ("Cohen's κ", "agreement beyond chance: 0 is chance, 1 perfect"),
    "roc_auc": ("ROC-AUC", "chance that an image of the class ranks above one that is not"),
    "average_precision": ("Average precision", "area under the precision-recall curve"),
}
"""Display name and meaning by score; macro scores take the words of their single score."""


def score_words(score: str) -> tuple[str, str]:
    """Return the display name and the meaning of a score of `evaluation.scores`."""
    if score.startswith("macro_"):
        name, meaning = SCORE_WORDS[score.removeprefix("macro_")]
        lower = name if name[1:2].isupper() or name[1:2].isdigit() else name[0].lower() + name[1:]
        return f"Macro {lower}", f"mean over the classes; {meaning}"
    return SCORE_WORDS[score]


def percent(share: float) -> str:
    """Say a share in per cent with one decimal, or that it is not defined."""
    return NOT_DEFINED if math.isnan(share) else f"{100 * share:.1f}{NO_BREAK_SPACE}%"


def rounded(value: float) -> str:
    """Say a score with three decimals, or that it is not defined."""
    return NOT_DEFINED if math.isnan(value) else f"{value:.3f}"
