from glomerulab.apps.web.security import NOTICE, NOTICE_HEADER


def test_the_notice_says_what_it_must_and_can_stand_in_a_header():
    assert NOTICE.startswith("Research use only")
    assert "not for diagnosis" in NOTICE
    assert (NOTICE_HEADER + NOTICE).isascii()
    assert "\n" not in NOTICE
