"""Real Spanish prose about software: the manuals and translations that Debian packages carry.

Synthetic sentences alone leave a model that knows few turns of phrase; these are written by people. The packages are
not installed, only unpacked; their texts go into the training stream and nowhere else.

Run: python -m tools.corpus.prose OUT.jsonl.gz     (on Debian, with apt's sources; about a minute)
"""

from __future__ import annotations

import argparse
import gettext
import gzip
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from stages.shared.atomic import atomic_file
from stages.shared.console import say, size

PACKAGES = (
    "amide anjuta-common apache2-doc appstream aptitude-doc-es audacity-data bibletime-data cairo-dock-core "
    "cairo-dock-plug-in-data calligrasheets-data cinnamon-l10n claws-mail-doc claws-mail-i18n debian-edu-doc-es "
    "debian-handbook debian-reference-es digikam-data dolphin drawing drgeo-doc epiphany-browser-data evince-common "
    "evolution-common eyes17 filezilla-common fortunes-es freedombox freedombox-doc-es freeipa-common gbrainy gdm3 "
    "gedit-common genius-common gimp-help-es glabels-data gnome-commander-data gnome-desktop3-data "
    "gnome-system-monitor gnome-terminal-data gnome-user-docs gnote gnucash-common gnumed-client gnumeric-common "
    "gparted-common gramps gsettings-desktop-schemas gthumb-data gtkmm-documentation inkscape "
    "installation-guide-amd64 juk k3b-i18n kajongg kalarm kdenlive-data kdevelop-data kdevelop-l10n kdiff3-doc kgpg "
    "kicad-doc-es kig kile-l10n kio kleopatra kmplot kmymoney-common knights kodi-data kompare konversation-data "
    "korganizer krita-l10n ktouch-data kturtle kubrick libexiv2-27 libreoffice-help-es libreoffice-l10n-es "
    "lilypond-doc-html-es lokalize maint-guide-es meld mplayer-doc network-manager nted-doc okular orca palapeli-data "
    "partitionmanager php-horde-imp phpmyadmin pidgin-data pitivi python3-django-horizon python3-electrum "
    "python3-heat rhythmbox-data rkward-data sawfish-data seahorse shotwell-common siril-common skrooge-common step "
    "sylpheed-doc sympa tellico-data tellico-doc ubuntu-packaging-guide-html-es umbrello-data wesnoth-1.16-data "
    "wordpress-l10n zypper-common"
).split()
_SPANISH_PATH = re.compile(r"[/_.-]es(?:[-_]ES)?[/_.-]")
_BLOCKS = {"p", "li", "dd", "td", "para", "simpara", "title", "item", "h1", "h2", "h3", "dt", "summary", "div"}
_STOPWORDS = frozenset("de la el que en los se un para las con una por del no es al su lo como o más si puede".split())
_FOREIGN = frozenset("the of and is this that with are you your from und der die les des não você uma het een".split())
_ODD = re.compile(
    r"[{}<>|\\=_@#]|&\w+;|https?:|%[sd(\d]|\$|[ãõçêàèâÃÂ]|[a-z]\.[A-ZÁÉÍÓÚÑ¿]|[^\x00-\u024f\u2010-\u203a€]"
)


def is_prose(text: str) -> bool:
    """Whether a text is a Spanish sentence or more, and not code, a table cell or another language."""
    words = re.findall(r"[a-záéíóúñü]+", text.lower())
    if len(words) < 6 or len(text) > 1500 or text[-1] not in ".:;?!»)" or _ODD.search(text):
        return False
    share = sum(word in _STOPWORDS for word in words) / len(words)
    return share > 0.22 and not any(word in _FOREIGN for word in words)


def _texts(file: Path) -> Iterator[str]:
    if file.suffix == ".mo":
        with file.open("rb") as handle:
            catalog = gettext.GNUTranslations(handle)._catalog  # type: ignore[attr-defined]
        yield from (text for text in catalog.values() if isinstance(text, str))
        return
    if file.suffix == ".fortunes":
        yield from file.read_text(encoding="utf-8").split("\n%\n")
        return
    from lxml import etree, html

    try:
        root = html.parse(str(file), html.HTMLParser(encoding="utf-8")).getroot()
    except etree.LxmlError:
        return
    if root is None:
        return
    for element in root.iter():
        if (
            isinstance(element.tag, str)
            and element.tag in _BLOCKS
            and not any(c.tag in _BLOCKS for c in element.iter() if c is not element)
        ):
            yield str(element.text_content())


def paragraphs(folder: Path) -> Iterator[str]:
    """Every Spanish paragraph of the unpacked packages, once, in the order of the files' names."""
    seen: set[str] = set()
    for file in sorted(folder.rglob("*")):
        if (
            not file.is_file()
            or file.suffix not in (".html", ".page", ".mo", ".docbook", ".fortunes")
            or not _SPANISH_PATH.search(str(file))
        ):
            continue
        for raw in _texts(file):
            text = " ".join(raw.replace("…", "...").replace("&", "").split())
            if text and text not in seen and is_prose(text):
                seen.add(text)
                yield text


def unpack(package: str, folder: Path) -> str:
    """Fetch one package with apt and unpack it into `folder` without installing it; return its file's name."""
    subprocess.run(["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=folder, check=True)
    file = next(folder.glob(f"{package}_*.deb"))
    subprocess.run(["dpkg-deb", "--extract", file.name, package], cwd=folder, check=True)
    file.unlink()
    return file.name


def main() -> None:
    """Fetch and unpack the packages, write one paragraph a line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, atomic_file(arguments.out) as partial:
        for package in PACKAGES:
            say(unpack(package, Path(scratch)))
        found = list(paragraphs(Path(scratch)))
        # No time stamp in the file: the same packages give the same bytes.
        with gzip.GzipFile(partial, "wb", mtime=0) as out:
            out.writelines(json.dumps(text, ensure_ascii=False).encode() + b"\n" for text in found)
    say(f"{arguments.out}: {len(found)} paragraphs, {sum(map(len, found)) / 1e6:.1f} MB, {size(arguments.out)}")


if __name__ == "__main__":
    main()
