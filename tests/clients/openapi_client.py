"""Perl's OpenAPI::Client, for the two operations that a page about it shows first: getResponse and deleteResponse."""

import hashlib
import shutil

import pytest

from tests.clients.conftest import INSTALLED, PROGRAMS

PERL = INSTALLED / "perl/usr"
# It checks a description by the schema of OpenAPI 3.1, which Debian does not pack and which it would ask the network
# for. A schema that takes everything stands in for it: other tests hold our description against the standard.
META_SCHEMA = "https://spec.openapis.org/oas/3.1/schema/2021-05-20"


@pytest.fixture
def perl(run, tmp_path):
    if not (PERL / "share/perl5/OpenAPI/Client.pm").exists() or shutil.which("perl") is None:
        pytest.skip("OpenAPI::Client is not installed below .clients")
    (tmp_path / hashlib.md5(META_SCHEMA.encode()).hexdigest()).write_text("{}")
    places = [PERL / "share/perl5", *PERL.glob("lib/*/perl5/*")]
    return lambda program: run(
        "perl",
        PROGRAMS / program,
        PERL5LIB=":".join(map(str, places)),
        JSON_VALIDATOR_CACHE_PATH=str(tmp_path),
    )


def test_it_calls_the_operations_by_their_names(perl):
    perl("openapi_client.pl")
