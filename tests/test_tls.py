"""The server by TLS, and behind a proxy that speaks it."""

import datetime
import ipaddress
import ssl

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from antiphon.cli import main
from tests.servers.antiphon import PLAIN, Process
from tests.servers.chat import ChatServer
from tests.servers.running import serve

KEY = "sk-alice-0123456789abcdef"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that it signed itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "antiphon")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder


@pytest.fixture
def served(tmp_path):
    """`antiphon serve` as a process, with the flags given."""
    running = []
    with serve(ChatServer()) as upstream:

        def start(*flags):
            running.append(Process(upstream, tmp_path, *flags))
            return running[-1].url

        yield start
        for process in running:
            process.close()


def test_with_a_certificate_the_server_speaks_tls_alone(served, certificate):
    url = served("--tls-cert", str(certificate / "cert.pem"), "--tls-key", str(certificate / "key.pem"))
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    with httpx2.Client(base_url=url, verify=trusting) as http:
        models = http.get("/models")
        answer = http.post("/responses", json={"model": "text:Hello", "input": "Hi"})

    assert url.startswith("https://127.0.0.1:")
    assert models.headers["strict-transport-security"] == "max-age=31536000"
    assert answer.json()["output"][0]["content"][0]["text"] == "Hello"
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(url.replace("https:", "http:") + "/models", **PLAIN)


def test_files_that_are_no_certificate_stop_the_start(certificate, tmp_path, capsys):
    (tmp_path / "text.pem").write_text("not a certificate")
    cert, key, text = (str(path) for path in (certificate / "cert.pem", certificate / "key.pem", tmp_path / "text.pem"))

    for files, said in (
        ((cert, text), "are no certificate and its key"),
        ((text, key), "are no certificate and its key"),
        ((str(tmp_path / "none.pem"), key), "tls_cert: "),
        ((cert, str(tmp_path / "none.pem")), "tls_key: "),
    ):
        assert main(["serve", "--database", "sqlite://", "--tls-cert", files[0], "--tls-key", files[1]]) == 2
        assert said in capsys.readouterr().err


FORWARDED = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "authorization": f"Bearer {KEY}"}


def server_url(url):
    description = httpx2.get(url.removesuffix("/v1") + "/openapi.json", headers=FORWARDED, **PLAIN).json()
    return description["servers"][0]["url"]


def test_a_proxy_is_believed_if_it_is_named(served, monkeypatch):
    monkeypatch.setenv("ANTIPHON_API_KEYS", f"alice:{KEY}")
    url = served("--forwarded-allow-ips", "127.0.0.1")

    assert server_url(url).startswith("https://")


def test_without_that_what_a_caller_says_of_itself_counts_for_nothing(served, monkeypatch):
    monkeypatch.setenv("ANTIPHON_API_KEYS", f"alice:{KEY}")
    url = served()

    assert server_url(url).startswith("http://")
