"""What a reader must know of the model, as rows of text in English or Chinese."""

from glomerulab.cases.case_folder import CaseFacts, ModelFacts
from glomerulab.reports.case.words import Language, name_of
from glomerulab.runtime.messages import count_noun

__all__ = ["model_rows"]


def model_rows(facts: CaseFacts, language: Language) -> tuple[tuple[str, str], ...]:
    """Return the model's card: what it is, what it rests on, its thresholds, what it is not for.

    Parameters
    ----------
    facts : CaseFacts
    language : {"en", "zh"}

    Returns
    -------
    tuple of (str, str)
        Name and text of each row.
    """
    return _chinese(facts) if language == "zh" else _english(facts)


def _english(facts: CaseFacts) -> tuple[tuple[str, str], ...]:
    m = facts.model
    synthetic = "; SYNTHETIC" if m.trained_on_synthetic else ""
    images, patients = (
        count_noun(m.n_training_images, "image"),
        count_noun(m.n_training_patients, "patient"),
    )
    return (
        ("Model", f"{m.model}, {m.head}; run {m.run}; weights {m.weights_sha256[:12]}"),
        ("Trained on", f"{images} of {patients}; stains: {_stains(m)}{synthetic}"),
        ("On its held-out part", m.test_summary or "not stated"),
        ("Answers", ", ".join(name_of(one, "en") for one in m.labels)),
        ("Temperature", f"{m.temperature:.2f}, fitted on {m.n_validation} validation images"),
        (
            "Conformal sets",
            f"hold the truth in {m.coverage:.0%}; an answer needs {m.conformal_threshold:.2f}",
        ),
        (
            "Unlike the training images",
            f"distance above {m.distance_threshold:.2f} (95 % of validation images lie nearer)",
        ),
        ("Out of focus", f"sharpness below {m.sharpness_threshold:.2f}"),
        ("Colours brought to a reference", ", ".join(m.normalized_to) or "no"),
        ("Predicted", f"{facts.created}, glomerulab {facts.glomerulab}"),
        ("Not for", "Diagnosis or treatment; any decision about a patient."),
    )


def _chinese(facts: CaseFacts) -> tuple[tuple[str, str], ...]:
    m = facts.model
    synthetic = "；合成图像" if m.trained_on_synthetic else ""
    trained = f"{m.n_training_patients} 名患者的 {m.n_training_images} 幅图像"
    return (
        ("模型", f"{m.model}，{m.head}；训练记录 {m.run}；权重 {m.weights_sha256[:12]}"),
        ("训练数据", f"{trained}；染色：{_stains(m)}{synthetic}"),
        ("留出集表现", m.test_summary_zh or m.test_summary or "未说明"),
        ("可给出的标签", "、".join(name_of(one, "zh") for one in m.labels)),
        ("温度", f"{m.temperature:.2f}，由 {m.n_validation} 幅验证图像拟合"),
        (
            "共形集",
            f"{m.coverage:.0%} 的情况下包含真实答案；答案的概率须达到 {m.conformal_threshold:.2f}",
        ),
        ("与训练图像不相似", f"距离大于 {m.distance_threshold:.2f}（95% 的验证图像小于此值）"),
        ("失焦", f"清晰度低于 {m.sharpness_threshold:.2f}"),
        ("颜色归一化至参考", "、".join(m.normalized_to) or "无"),
        ("预测时间", f"{facts.created}，glomerulab {facts.glomerulab}"),
        ("不可用于", "诊断或治疗；任何涉及患者的决定。"),
    )


def _stains(model: ModelFacts) -> str:
    return ", ".join(f"{stain} {n}" for stain, n in model.stains_seen.items()) or "?"
