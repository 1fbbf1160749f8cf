"""Names of networks that say where something of theirs lies: code of one's own, a folder of Hugging Face's."""

from requant import hugging_face, own_code


def name_in_file(name: str) -> str:
    """The name without a place, as archives and folders of runs have it."""
    if own_code.is_own(name):
        return own_code.title(name)
    return hugging_face.title(name) if hugging_face.is_hugging_face(name) else name


def name_by_content(name: str) -> str:
    """The name with the sha256 of what lies there in the place's place: what results depend on.

    Raises:
        ConfigError: where nothing is found.

    """
    if own_code.is_own(name):
        return own_code.by_content(name)
    return hugging_face.by_content(name) if hugging_face.is_hugging_face(name) else name
