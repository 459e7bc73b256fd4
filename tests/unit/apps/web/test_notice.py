from glomerulab.apps.web.security import NOTICE, NOTICE_HEADER


def test_the_notice_states_research_use_and_fits_into_a_header():
    assert NOTICE.startswith("Research use only")
    assert "not for diagnosis" in NOTICE
    assert (NOTICE_HEADER + NOTICE).isascii()
    assert "\n" not in NOTICE
