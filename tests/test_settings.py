"""Settings: who decides, what is refused, and what a refusal says."""

import re

import pytest

from antiphon.errors import BadSetting
from antiphon.settings import Settings, is_loopback, misspelled

KEYS = {"ANTIPHON_API_KEYS": "alice:key-a,bob:key-b"}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusal(flags=None, environ=None, config=None):
    with pytest.raises(BadSetting) as refused:
        Settings.load(flags or {}, environ or {}, config)
    return str(refused.value)


def toml(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_gives_the_defaults():
    assert Settings.load({}, {}) == Settings()


def test_a_flag_comes_before_a_variable_and_a_variable_before_the_file(tmp_path):
    config = toml(tmp_path / "antiphon.toml", "port = 1\nworkers = 1\nmax_attempts = 1\n")
    environ = {"ANTIPHON_PORT": "2", "ANTIPHON_WORKERS": "2"}

    settings = Settings.load({"port": "3", "workers": None}, environ, config)

    assert (settings.port, settings.workers, settings.max_attempts) == (3, 2, 1)


def test_the_file_in_the_working_directory_is_found(tmp_path):
    toml(tmp_path / "antiphon.toml", "port = 1234")

    assert Settings.load({}, {}).port == 1234


def test_an_empty_variable_is_as_good_as_none():
    assert Settings.load({}, {"ANTIPHON_PORT": " "}).port == 8000


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Settings().port = 1  # type: ignore[misc]


def test_each_default_is_a_value_that_could_have_been_given():
    for setting in Settings.table():
        if setting.default is not None:
            assert setting.kind.read(setting.default) == setting.default
            assert type(setting.kind.read(setting.default)) is type(setting.default)


@pytest.mark.parametrize("written", ["true", "Yes", "1", "on"])
def test_a_switch_is_turned_on_by_a_word(written):
    assert Settings.load({}, {"ANTIPHON_SSE_DONE": written}).sse_done is True


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("PORT", "70000", "a whole number from 0 to 65535"),
        ("PORT", "tcp://10.0.0.1:8000", "a whole number from 0 to 65535"),
        ("WORKERS", "-1", "a whole number from 0 up"),
        ("MAX_ATTEMPTS", "0", "a whole number from 1 up"),
        ("LEASE_SECONDS", "nan", "a number above 0"),
        ("LEASE_SECONDS", "inf", "a number above 0"),
        ("ORPHAN_GRACE_SECONDS", "-1", "a number from 0 up"),
        ("SSE_DONE", "maybe", "true or false"),
        ("DURABILITY", "none", "one of full, process"),
        ("LOG_LEVEL", "loud", "one of debug, info, warning, error"),
        ("UPSTREAM", "127.0.0.1:8080", "an http or https URL"),
        ("UPSTREAM", "ftp://host/v1", "an http or https URL"),
        ("UPSTREAM", "http://host/v1?key=1", "an http or https URL"),
        ("UPSTREAM", "http://[::1/v1", "an http or https URL"),
        ("DATABASE", "antiphon.db", "sqlite:///relative/path"),
        ("DATABASE", "sqlite:///", "sqlite:///relative/path"),
        ("DATABASE", "sqlite:antiphon.db", "sqlite:///relative/path"),
    ],
)
def test_a_refusal_names_the_setting_the_value_and_what_was_expected(variable, value, expected):
    message = refusal(environ={f"ANTIPHON_{variable}": value})

    assert message.startswith(f"ANTIPHON_{variable}: {value!r} is not {expected}")


@pytest.mark.parametrize(
    "line", ["port = true", 'port = "x"', "port = 1.5", "host = 5", 'sse_done = "maybe"', "port = []"]
)
def test_a_toml_value_of_the_wrong_type_is_refused_with_its_file(tmp_path, line):
    config = toml(tmp_path / "mine.toml", line)

    assert refusal(config=config).startswith(f"{config}: {line.split()[0]}: ")


def test_a_refused_flag_is_named_as_it_was_written():
    assert refusal(flags={"max_attempts": "many"}).startswith("--max-attempts: 'many' is not")


def test_an_unknown_name_in_the_file_is_refused_with_the_nearest_setting(tmp_path):
    config = toml(tmp_path / "mine.toml", "max-atempts = 3")

    assert refusal(config=config) == f"{config}: 'max-atempts' is not a setting; did you mean 'max_attempts'?"


def test_a_file_that_was_named_must_be_there(tmp_path):
    assert "there is no such file" in refusal(config=tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path, content):
    (tmp_path / "antiphon.toml").write_bytes(content)

    assert refusal().startswith("antiphon.toml: is not TOML: ")


def test_a_misspelled_variable_is_noticed_and_a_foreign_one_is_not():
    environ = {"ANTIPHON_DATABSE": "x", "ANTIPHON_PORT_8000_TCP_ADDR": "x", "ANTIPHON_PORT": "1", "HOME": "x"}

    assert misspelled(environ) == {"ANTIPHON_DATABSE": "ANTIPHON_DATABASE"}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///antiphon.db", "antiphon.db"),
        ("sqlite:///data/a.db", "data/a.db"),
        ("sqlite:////var/lib/a.db", "/var/lib/a.db"),
        ("sqlite://", ":memory:"),
    ],
)
def test_the_database_url_names_a_file_or_memory(url, path):
    assert Settings.load({"database": url}, {}).database_path == path


def test_a_postgresql_url_is_shown_without_its_password():
    settings = Settings.load({"database": "postgresql://me:secret@db:5433/antiphon"}, {})

    assert settings.postgres
    assert settings.database_path == "postgresql://db:5433/antiphon"


def test_an_upstream_loses_its_last_slash():
    assert Settings.load({"upstream": "http://127.0.0.1:8080/v1/"}, {}).upstream == "http://127.0.0.1:8080/v1"


def test_a_key_in_the_upstream_url_is_refused():
    assert "upstream_key_env" in refusal(flags={"upstream": "http://me:secret@127.0.0.1/v1"})


def test_the_upstream_key_is_read_from_the_variable_that_is_named():
    settings = Settings.load({}, {"ANTIPHON_UPSTREAM_KEY_ENV": "MODEL_KEY", "MODEL_KEY": "sk-secret"})

    assert settings.upstream_key == "sk-secret"
    assert "sk-secret" not in repr(settings)


@pytest.mark.parametrize("environ", [{}, {"MODEL_KEY": " "}, {"MODEL_KEY": "hidden\r\nx-other: 1"}])
def test_a_named_upstream_key_that_is_missing_or_would_not_fit_into_a_header_is_refused(environ):
    message = refusal(flags={"upstream_key_env": "MODEL_KEY"}, environ=environ)

    assert "MODEL_KEY is not set, empty, or more than a line" in message
    assert "hidden" not in message


@pytest.mark.parametrize("port", ["0", "70000", "x"])
def test_an_upstream_without_a_possible_port_is_refused(port):
    assert f"'http://h:{port}/v1'" in refusal(flags={"upstream": f"http://h:{port}/v1"})


def test_each_key_has_a_name():
    assert Settings.load({}, KEYS).api_keys == {"alice": "key-a", "bob": "key-b"}


def test_a_key_may_hold_a_colon():
    assert Settings.load({}, {"ANTIPHON_API_KEYS": "alice:sk:1"}).api_keys == {"alice": "sk:1"}


def test_keys_can_be_a_table_of_the_file(tmp_path):
    config = toml(tmp_path / "mine.toml", '[api_keys]\nalice = "key-a"\n')

    assert Settings.load({}, {}, config).api_keys == {"alice": "key-a"}


def test_a_key_is_a_tenants_or_an_admins():
    settings = Settings.load({}, {**KEYS, "ANTIPHON_ADMIN_KEYS": "prometheus:key-p"})

    assert settings.admin_keys == {"prometheus": "key-p"}
    assert "key-p" not in repr(settings)
    assert "admin_keys: one of them is in api_keys" in refusal(environ={**KEYS, "ANTIPHON_ADMIN_KEYS": "me:key-a"})


def test_keys_are_not_shown():
    assert "key-a" not in repr(Settings.load({}, KEYS))


@pytest.mark.parametrize(
    "written",
    ["sk-secret", ",", "alice:", ":sk-secret", "alice:sk-secret,alice:other", "alice:sk-secret,bob:sk-secret"],
)
def test_bad_keys_are_refused_without_being_shown(written):
    message = refusal(environ={"ANTIPHON_API_KEYS": written})

    assert message.startswith("ANTIPHON_API_KEYS: the value is ")
    assert "sk-secret" not in message


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_without_keys_only_this_machine_may_reach_the_server(host):
    with pytest.raises(BadSetting, match=f"^host: {re.escape(repr(host))} can be reached by others"):
        Settings.load({"host": host}, {}).check_reach(keys_kept=False)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_a_loopback_address_is_known(host):
    assert is_loopback(host)


@pytest.mark.parametrize("more", [KEYS, {"ANTIPHON_INSECURE_NO_AUTH": "true"}])
def test_with_keys_or_on_demand_others_may_reach_the_server(more):
    Settings.load({"host": "0.0.0.0"}, more).check_reach(keys_kept=False)


def test_with_keys_in_the_database_others_may_reach_the_server():
    Settings(host="0.0.0.0").check_reach(keys_kept=True)


def test_a_certificate_comes_with_its_key():
    assert refusal(flags={"tls_cert": "cert.pem"}).startswith("tls_cert: TLS needs tls_cert and tls_key")


@pytest.mark.parametrize("written", ["example.com", "https://example.com/app", "*", "file:///", "https://"])
def test_an_origin_is_a_scheme_and_a_host(written):
    assert refusal(flags={"cors_origins": written}).startswith(f"--cors-origins: {written!r} is not origins like")


def test_origins_are_given_one_behind_the_other():
    settings = Settings.load({"cors_origins": "https://a.example, http://localhost:3000/"}, {})

    assert settings.cors_origins == ("https://a.example", "http://localhost:3000")


def test_a_lease_is_renewed_before_it_ends():
    for flags in ({"lease_renew_seconds": "9"}, {"poll_seconds": "9"}):
        assert "lease_seconds: 10 is too short" in refusal(flags=flags)


UPSTREAMS = """
[upstreams.openai]
url = "https://api.openai.com/v1/"
key_env = "OPENAI_API_KEY"
models = ["gpt-*", "o3"]
protocol = "responses"

[upstreams.vllm]
url = "http://10.0.0.7:8000/v1"
aliases = {"gpt-5" = "qwen3-32b"}
headers = {X-Team = "blue"}
cache_salt = "pepper-secret"
max_parallel = 64
idle_seconds = 60
"""


def upstreams(path, text, environ=None):
    return Settings.load({}, environ or {}, toml(path / "mine.toml", text))


def test_several_upstreams_are_tables_of_the_file(tmp_path):
    settings = upstreams(tmp_path, UPSTREAMS, {"OPENAI_API_KEY": "sk-secret"})

    openai, vllm = settings.model_servers
    assert (openai.name, openai.url, openai.key) == ("openai", "https://api.openai.com/v1", "sk-secret")
    assert (openai.models, openai.protocol, openai.retries) == (("gpt-*", "o3"), "responses", 2)
    assert (vllm.models, vllm.protocol, vllm.max_parallel, vllm.idle_seconds) == ((), "auto", 64, 60.0)
    assert vllm.aliases == {"gpt-5": "qwen3-32b"}
    assert "secret" not in repr(settings)


def test_the_variable_has_the_same_as_json():
    environ = {"ANTIPHON_UPSTREAMS": '{"a": {"url": "http://10.0.0.7/v1", "models": ["*"]}}'}

    assert Settings.load({}, environ).upstreams["a"].models == ("*",)


def test_the_one_upstream_is_asked_for_what_no_other_has(tmp_path):
    environ = {"OPENAI_API_KEY": "k", "ANTIPHON_UPSTREAM": "http://127.0.0.1:8080/v1", "ANTIPHON_UPSTREAM_RETRIES": "0"}
    settings = upstreams(tmp_path, UPSTREAMS, environ)

    last = settings.model_servers[-1]
    assert [each.name for each in settings.model_servers] == ["openai", "vllm", "upstream"]
    assert (last.url, last.models, last.retries) == ("http://127.0.0.1:8080/v1", ("*",), 0)
    assert last.protocol == "chat_completions"


def test_without_an_upstream_there_is_no_model_server():
    assert Settings().model_servers == ()


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("models = ['*']", "a has no url"),
        ("url = 'http://h/v1'\nurls = 1", "a.urls is not a key of it, did you mean 'url'?"),
        ("url = 'ftp://h/v1'", "a.url: 'ftp://h/v1' is not an http or https URL"),
        ("url = 'http://me:hidden@h/v1'", "a.url: the value is not an http or https URL without a key in it"),
        ("url = 'http://h/v1'\nmodels = []", "a.models: [] is not a list of names and patterns"),
        ("url = 'http://h/v1'\nmodels = 'gpt-*'", "a.models: 'gpt-*' is not a list"),
        (
            "url = 'http://h/v1'\nprotocol = 'soap'",
            "a.protocol: 'soap' is not one of auto, chat_completions, responses",
        ),
        ("url = 'http://h/v1'\nidle_seconds = 0", "a.idle_seconds: 0 is not a number above 0"),
        ("url = 'http://h/v1'\nretries = -1", "a.retries: -1 is not a whole number from 0 up"),
        ("url = 'http://h/v1'\nmax_parallel = 0", "a.max_parallel: 0 is not a whole number from 1 up"),
        ("url = 'http://h/v1'\ncontinues_prefix = 'yes'", "a.continues_prefix: 'yes' is not true or false"),
        ("url = 'http://h/v1'\naliases = ['x']", "a.aliases: ['x'] is not a table of names"),
        ("url = 'http://h/v1'\nheaders = {'X Y' = 'hidden'}", "a.headers: the value is not a table of header names"),
        ("url = 'http://h/v1'\nkey = 5", "a.key: the value is not a text"),
        ('url = "http://h/v1"\nkey = "hidden\\nx: y"', "a.key: the value is not a text"),
        ("url = 'http://h/v1'\nkey = 'hidden'\nkey_env = 'K'", "a has a key and a key_env"),
        (
            "url = 'http://h/v1'\nmodels = ['x']\n[upstreams.b]\nurl = 'http://i/v1'\naliases = {x = 'y'}",
            "a and b both have 'x'",
        ),
    ],
)
def test_an_upstream_that_makes_no_sense_is_refused_with_its_place(tmp_path, table, fault):
    config = toml(tmp_path / "mine.toml", f"[upstreams.a]\n{table}\n")
    message = refusal(config=config)

    assert message.startswith(f"{config}: upstreams: the value is refused: {fault}")
    assert "hidden" not in message


@pytest.mark.parametrize("written", ["http://h/v1", "[]", '{"a": 1}'])
def test_upstreams_that_are_no_tables_are_refused(written):
    assert refusal(environ={"ANTIPHON_UPSTREAMS": written}).startswith(
        "ANTIPHON_UPSTREAMS: the value is refused: it is"
    )


def test_a_missing_key_of_an_upstream_is_named(tmp_path):
    config = toml(tmp_path / "mine.toml", UPSTREAMS)

    assert "upstreams.openai.key_env: the variable OPENAI_API_KEY is not set" in refusal(config=config)


def test_two_upstreams_cannot_both_have_the_rest(tmp_path):
    config = toml(tmp_path / "mine.toml", "[upstreams.a]\nurl = 'http://h/v1'\nmodels = ['*']\n")

    assert "models = ['*'] already" in refusal(flags={"upstream": "http://127.0.0.1/v1"}, config=config)
