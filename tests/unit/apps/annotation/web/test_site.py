from itsdangerous import TimestampSigner

from glomerulab.apps.annotation.store.accounts import signing_key
from glomerulab.apps.annotation.web.site import Site, SiteSettings
from glomerulab.apps.annotation.web.slide_cache import SlideCache
from glomerulab.apps.web.server import LOCAL_HOSTS


def test_a_site_signs_with_the_key_of_its_database(web):
    own = TimestampSigner(signing_key(web.store), salt="glomerulab-session")
    assert own.unsign(web.site.session_signer.sign("token")) == b"token"
    again = Site(web.store, SlideCache())
    assert again.csrf_signer.get_signature("x") == web.site.csrf_signer.get_signature("x")


def test_a_site_knows_its_study_and_that_it_is_set_up(web):
    assert not web.site.needs_setup()
    assert web.site.study().settings.name == "test study"
    assert web.site.crops_folder == web.folder / "drawn"


def test_by_default_a_site_answers_to_this_computer_alone():
    assert SiteSettings().hosts == LOCAL_HOSTS
