"""Error bodies: the envelope every client reads."""

from tidings.wire import failures


def test_the_envelope_of_an_error() -> None:
    """Contract §2.1: message and help as recorded, the code beside."""
    assert failures.render("Not Authorized", "not_authorized") == {
        "errors": [{"message": "Not Authorized", "help": failures.HELP, "code": "not_authorized"}]
    }
    assert failures.HELP == (
        "For more information on API status codes and how to handle them, "
        "read the docs on errors: https://developers.asana.com/docs/errors"
    )


def test_what_only_some_errors_carry() -> None:
    """The phrase of a 500, the webhook that stands in a duplicate's way."""
    common = {"message": "M", "help": failures.HELP, "code": "c"}
    assert failures.render("M", "c", phrase="6 sad squid") == {
        "errors": [{**common, "phrase": "6 sad squid"}]
    }
    assert failures.render("M", "c", gid="7") == {"errors": [{**common, "gid": "7"}]}
