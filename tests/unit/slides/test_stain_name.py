import pytest

from glomerulab.slides.stain_name import stain_of_properties

PREPARATION = "dicom.SpecimenDescriptionSequence[0].SpecimenPreparationSequence[{}].CodeMeaning"


@pytest.mark.parametrize(
    ("text", "stain"),
    [
        ("H&E", "HE"),
        ("hematoxylin and eosin", "HE"),
        ("Haematoxylin-Eosin", "HE"),
        ("PAS", "PAS"),
        ("Periodic acid-Schiff", "PAS"),
        ("PAS-M", "PASM"),
        ("periodic acid silver methenamine", "PASM"),
        ("Masson's trichrome", "TRI"),
        ("hematoxylin, DAB", "H-DAB"),
        ("Hematoxylin and 3,3'-diaminobenzidine", "H-DAB"),
        ("dabigatran", None),
        ("Congo red", None),
        ("pass", None),
    ],
)
def test_a_stain_is_known_by_its_names(text, stain):
    assert stain_of_properties({"scanner.Stain": text}) == stain


def test_the_dyes_of_one_dicom_preparation_are_read_together():
    properties = {
        PREPARATION.format(0): "hematoxylin stain",
        PREPARATION.format(1): "water soluble eosin stain",
    }
    assert stain_of_properties(properties) == "HE"


def test_other_properties_name_no_stain():
    assert stain_of_properties({"aperio.Filename": "case 7 PAS"}) is None
