"""What a reader must know before the numbers of a case: one list, told in every format."""

from collections.abc import Callable
from dataclasses import dataclass

from glomerulab.cases.case import Case
from glomerulab.cases.corrections import OutdatedCorrection
from glomerulab.cases.counting import is_bare_number
from glomerulab.reports.case.words import Language, moment, words
from glomerulab.runtime.messages import count_noun

__all__ = ["CaseWarning", "case_warnings", "lost_words"]

MAX_LISTED = 12


@dataclass(frozen=True)
class CaseWarning:
    """One thing that makes the numbers of a case mean less, or something else."""

    kind: str
    """The same in every language, for programs: such as ``proposed`` or ``not_judged``."""
    title: str
    text: str
    is_severe: bool

    @property
    def sentence(self) -> str:
        """Title and text as English prose."""
        return f"{self.title}. {self.text}"


def case_warnings(
    case: Case, language: Language, *, max_listed: int | None = MAX_LISTED
) -> tuple[CaseWarning, ...]:
    """Say what a reader must know of a case.

    Parameters
    ----------
    case : ReportedCase
    language : {"en", "zh"}
    max_listed : int or None, default 12
        Names that a list on a page holds at most; None: all of them.

    Returns
    -------
    tuple of CaseWarning
        What weighs most first; the notes of the predictions last.
    """
    zh = language == "zh"
    makers: tuple[Callable[[], CaseWarning | None], ...] = (
        lambda: _synthetic_model(case, zh=zh),
        lambda: _nothing_judged(case, zh=zh),
        lambda: _proposed(case, zh=zh),
        lambda: _not_judged(case, max_listed, zh=zh),
        lambda: _lost_changes(case, zh=zh),
        lambda: _changes_of_nobody(case, zh=zh),
        lambda: _not_settled(case, zh=zh),
        lambda: _numbered(case, max_listed, zh=zh),
        lambda: _few(case, zh=zh),
        lambda: _seen(case, zh=zh),
    )
    found = [made for make in makers if (made := make()) is not None]
    for note in case.notes:
        title, text = ("备注", note.zh or note.en) if zh else ("Note", note.en)
        found.append(CaseWarning("note", title, text, is_severe=False))
    return tuple(found)


def _synthetic_model(case: Case, *, zh: bool) -> CaseWarning | None:
    if not case.facts.model.trained_on_synthetic:
        return None
    if zh:
        title, text = "模型由合成图像训练", "其判定不反映真实患者。"
    else:
        title = "The model was trained on synthetic images"
        text = "Its calls say nothing about patients."
    return CaseWarning("synthetic_model", title, text, is_severe=True)


def _nothing_judged(case: Case, *, zh: bool) -> CaseWarning | None:
    if case.calls:
        return None
    if zh:
        title, text = "没有任何图像得到判定", "各项计数为 0 是因为没有可用图像，并不表示没有病变。"
    else:
        title = "Not one image was judged"
        text = "Every count is 0 for want of images: that says nothing of lesions."
    return CaseWarning("nothing_judged", title, text, is_severe=True)


def _proposed(case: Case, *, zh: bool) -> CaseWarning | None:
    n_proposed, n_all = sum(call.is_proposed for call in case.calls), len(case.calls)
    if not n_proposed:
        return None
    made = case.facts.detector
    summary = "" if made is None else (made.test_summary_zh if zh else "") or made.test_summary
    if zh:
        title = f"{n_all}个区域中有{n_proposed}个由检测器提出"
        text = (
            "未经人工勾画。检测器可能遗漏肾小球、误认其他组织，或在每张切片上重复计数："
            f"数量、比例和标本充足性均取决于其检出结果。{summary}"
        )
    else:
        title = f"{n_proposed} of {n_all} regions were proposed by a detector"
        text = (
            "No person drew them. It may have missed glomeruli, taken other tissue for one, and "
            "counted one anew on each section: numbers, shares and adequacy rest on what it "
            f"found. {summary}"
        ).rstrip()
    return CaseWarning("proposed", title, text, is_severe=True)


def _not_judged(case: Case, max_listed: int | None, *, zh: bool) -> CaseWarning | None:
    names = case.failures
    if not names:
        return None
    if zh:
        title = f"{len(names)} 个区域、图像或切片未能判定"
        listed = _listed(names, "、", max_listed)
        text = f"未计入任何结果：{listed}。原因见 failures.csv。"
    else:
        named = count_noun(len(names), "region, image or slide", "regions, images or slides")
        title = f"{named} could not be judged"
        text = f"In no count: {_listed(names, ', ', max_listed)}. See failures.csv."
    return CaseWarning("not_judged", title, text, is_severe=True)


def _not_settled(case: Case, *, zh: bool) -> CaseWarning | None:
    n = case.summary.n_referred
    if not n:
        return None
    if zh:
        title, text = f"{n} 个肾小球待复核", "复核后结果可能改变；原因见各图像旁。"
    else:
        title = f"{count_noun(n, 'glomerulus', 'glomeruli')} not settled"
        text = "Results may change when a human has looked; the reason stands beside each."
    return CaseWarning("not_settled", title, text, is_severe=True)


def _numbered(case: Case, max_listed: int | None, *, zh: bool) -> CaseWarning | None:
    """Say which regions were not joined although they are called alike: by a number."""
    slides: dict[str, set[str]] = {}
    for call in case.calls:
        if call.region_id is not None and is_bare_number(call.region_id):
            slides.setdefault(call.region_id, set()).add(call.slide_id)
    names = tuple(name for name, found in slides.items() if len(found) > 1)
    if not names:
        return None
    if zh:
        title = f"{len(names)} 个编号出现在多张切片上，各自计数"
        text = (
            f"编号 {_listed(names, '、', max_listed)}：软件会自动编号，仅有编号者不跨切片合并。"
            "若编号相同者为同一肾小球，则被重复计数；请以字母命名区域（如 g7）后重新预测。"
        )
    else:
        stand = count_noun(len(names), "number stands", "numbers stand")
        title = f"{stand} on several slides, counted on each"
        text = (
            f"Regions called {_listed(names, ', ', max_listed)}: a bare number joins no sections, "
            "as programs number regions by themselves. If equal numbers are one glomerulus, it was "
            "counted more than once: name the regions with a letter (g7) and predict again."
        )
    return CaseWarning("numbered", title, text, is_severe=False)


def _few(case: Case, *, zh: bool) -> CaseWarning | None:
    if not case.summary.is_small:
        return None
    if zh:
        title, text = "少于25个肾小球", "百分比不可靠，请看区间。"
    else:
        title, text = "Fewer than 25 glomeruli", "Percentages are unreliable: read the intervals."
    return CaseWarning("few", title, text, is_severe=False)


def _seen(case: Case, *, zh: bool) -> CaseWarning | None:
    n_confirmed = len(case.confirmed)
    n_changed = len(case.latest_corrections) - n_confirmed
    if zh:
        changed, confirmed = f"{n_changed} 个判定经人工更改", f"{n_confirmed} 个判定经人工确认"
        join, end, text = "，", "", "计数采用人工结果；模型原判定仍列出。"
    else:
        changed = f"{count_noun(n_changed, 'call')} changed"
        confirmed = f"{count_noun(n_confirmed, 'call')} confirmed"
        join, end = " and ", " by a person"
        text = "Counts follow the person; what the model said is still shown."
    told = [said for said, n in ((changed, n_changed), (confirmed, n_confirmed)) if n]
    return CaseWarning("seen", join.join(told) + end, text, is_severe=False) if told else None


def _lost_changes(case: Case, *, zh: bool) -> CaseWarning | None:
    if not case.lost:
        return None
    entries = [lost_words(one, "zh" if zh else "en") for one in case.lost]
    if zh:
        title = f"{len(entries)} 条人工更改不再适用"
        listed = "；".join(entries)
        text = f"未计入任何结果，仍保留在 overrides.csv 中：{listed}。请查看新图像并重新更改。"
    else:
        title = f"{count_noun(len(entries), 'change')} by people no longer "
        title += "applies" if len(entries) == 1 else "apply"
        text = (
            f"In no count, and still in overrides.csv: {'; '.join(entries)}. Look at the image as "
            "it is now, and change its call again."
        )
    return CaseWarning("lost_changes", title, text, is_severe=True)


def _changes_of_nobody(case: Case, *, zh: bool) -> CaseWarning | None:
    n = len(case.unmatched_corrections)
    if not n:
        return None
    if zh:
        title = f"{n} 条人工更改不知属于哪个病例"
        text = (
            "其图像不在任何切片上，可能属于其他患者，因此未列出。未计入任何结果，见 overrides.csv。"
        )
    else:
        title = f"{count_noun(n, 'change')} by people of nobody knows which case"
        text = (
            "The images are of no slide of these predictions and may be another patient's, so they "
            "are not named here. In no count; see overrides.csv."
        )
    return CaseWarning("lost_changes", title, text, is_severe=True)


def lost_words(lost: OutdatedCorrection, language: Language) -> str:
    """Name an entry that no longer applies, and say why."""
    row, phrase = lost.row, words(language)
    what = f"{row.image_id} = {row.labels} ({row.by}, {moment(row.time)})"
    return f"{what}{phrase['colon']}{phrase[f'lost_{lost.why}']}"


def _listed(names: tuple[str, ...], comma: str, most: int | None) -> str:
    return comma.join(names[:most]) + (" …" if most is not None and len(names) > most else "")
