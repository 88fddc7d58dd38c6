"""Conversations over real prose (`tools.corpus.prose`): continue it, copy it, mend it, turn it into JSON.

Copying words that people wrote, in the order in which they wrote them, is what an answer about a stranger's brief is
mostly made of. The objects have other keys than an Epic, and the prompt names them.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tools.corpus.documents import _STYLES, Document, Json, dumps
from tools.corpus.sentences import cap, pool, verb_forms

_SENTENCE = re.compile(r"(?<=[.;:?!]) (?=[A-ZÁÉÍÓÚÑ¿¡«])")
_SMALL = frozenset("a al ante con como de del el en la las lo los o para por que se si sin su sus un una y".split())

_WHO = pool(
    """
redactora técnica|documentalista|asistente de oficina|corrector de estilo|jefa de soporte|analista|formador|editora de
manuales|responsable de calidad|archivera|ayudante de redacción|traductor|secretaria de actas|auditor|consultora
"""
)
_RULES = pool(
    """
Respondes en español.|No inventes nombres ni cifras.|Respeta el orden.|No te dejes ningún punto.|Copia las cifras tal
cual.|Devuelve solo lo pedido.|Sé concreto.|Termina cuando acabe la respuesta.|No expliques tu razonamiento.|Usa las
mismas palabras del original.|Frases cortas.
"""
)
# How a statement is restated with something that can be checked. {s} begins in lower case, {S} in upper case.
_RESTATED = pool(
    """
{S}.|{S}, en menos de {n} {unit}.|{S}, con un máximo de {n} {unit}.|{S}, y queda registrado con fecha y autor.|{S}, al
menos en el {p} % de los casos.|Se verifica que {s}, con {n} casos de prueba.|Se comprueba lo siguiente: {s}.|En {n}
pruebas seguidas, {s}, sin ningún error.|{S}; si falla, se avisa en {n} {unit}.|Tras {n} {unit}, {s}.|Dado un caso
normal, cuando se revisa, entonces {s}.|{S}, sin perder ningún dato.|Con {n} usuarios a la vez, {s}.|{S}; el resultado
se guarda {n} años.|Cada vez que se prueba, {s}, en {n} {unit} o menos.|{S} y aparece en el informe del día.|Un revisor
confirma que {s} en {n} de {n} intentos.|{S}, con copia para el responsable.|Comprobado con {n} registros: {s}.
"""
)
# What is put into the middle of a statement, after which the copy goes on.
_INSERTED = pool(
    """
en menos de {n} {unit}|como máximo {n} veces al día|sin errores|de forma automática|desde el móvil|tras {n} intentos|
({n} casos)|sin intervención de nadie|en la misma pantalla|al menos el {p} % de las veces|con un solo clic|en {n} {unit}
o menos|con fecha y hora|para {n} usuarios a la vez|cada {n} {unit}|antes de {n} {unit}|con aviso previo|ya validado
"""
)
_OPENED = pool(
    "El sistema {present}|Se {present}|El usuario puede {infinitive}|Es posible {infinitive}|La aplicación {present}|"
    "Cada persona autorizada {present}|El equipo {present}"
)
_JOINTS = frozenset("a al con de del en para por que sin y o según desde hasta cuando si".split())
_UNITS = pool("segundos|minutos|horas|días|pasos|semanas")
_LISTED_AS = pool(
    """
puntos|comprobaciones|controles|pruebas|revisiones|verificaciones|condiciones|puntos_de_control|lista|apartados|casos
"""
)
_NAMED_AS = pool("nombre|asunto|tema|rotulo|encabezado|denominacion|cabecera|etiqueta|ficha")
_TOLD_AS = pool("resumen|texto|extracto|sintesis|explicacion|contenido|detalle|nota|presentacion|motivo|proposito")
_NOTED_AS = pool(
    "notas|avisos|observaciones|advertencias|recordatorios|pasos|ideas|citas|frases|limites|necesita|dudas"
)
_RANKED_AS = pool("nivel|urgencia|grado|estado|tipo|peso|orden")
_RANKS = (("Alto", "Medio", "Bajo"), ("Urgente", "Normal"), ("A", "B", "C"), ("Crítica", "Leve"), ("Rojo", "Verde"))
_CODED_AS = pool("ref|codigo|numero|clave|identificador|folio|expediente")
_INPUTS = pool("texto|material|documento|entrada|pagina|antecedentes|informe|relato|situacion")
_ITEMS = pool("puntos|lista|frases|pedidos|elementos|condiciones|notas|exigencias|apartados")


class Library:
    """The paragraphs of a file written by `tools.corpus.prose`, in order."""

    def __init__(self, file: Path) -> None:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            self.paragraphs: list[str] = [json.loads(line) for line in lines]

    def excerpt(self, rng: random.Random, characters: int) -> list[str]:
        """The sentences of consecutive paragraphs, about so many characters of them."""
        at = rng.randrange(len(self.paragraphs))
        found: list[str] = []
        size = 0
        while size < characters:
            paragraph = self.paragraphs[at % len(self.paragraphs)]
            found += _SENTENCE.split(paragraph)
            size, at = size + len(paragraph), at + 1
        return found

    def statements(self, rng: random.Random, count: int) -> list[str]:
        """Single sentences of 5 to 30 words without their period, half of the time from one place."""
        found: list[str] = []
        together = rng.random() < 0.5
        while len(found) < count:
            some = [s.rstrip(".:;") for s in self.excerpt(rng, 800) if 5 <= len(s.split()) <= 30]
            found += some if together else some[:1]
        return found[:count]


def lower(text: str) -> str:
    """First letter in lower case, unless the word is an acronym."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def loosely(statement: str, rng: random.Random) -> str:
    """The statement as somebody retells it: opened in other words, with something put in or left out half-way.

    Whoever copies has to find back to the original after each of these.
    """
    if rng.random() < 0.35:
        return statement
    words = statement.split()
    head, rest = words[0].lower(), " ".join(words[1:])
    forms = verb_forms(f"{head} {rest}") if rng.random() < 0.7 else None
    if forms:
        words = rng.choice(_OPENED).format(present=forms[0], infinitive=f"{head} {rest}").split()

    def joints() -> list[int]:
        return [i for i in range(3, len(words)) if words[i] in _JOINTS or words[i - 1].endswith(",")]

    if joints() and rng.random() < 0.3:
        start = rng.choice(joints())
        del words[start : rng.choice([i for i in joints() if start < i <= start + 5] or [start])]
    count = rng.choice((0, 1, 1, 2))
    for at in sorted(rng.sample(joints(), min(len(joints()), count)), reverse=True):
        words[at:at] = [rng.choice(_INSERTED)]
    return " ".join(words)


def restated(statement: str, frame: str, rng: random.Random) -> str:
    """The statement within a frame, with numbers drawn for it."""
    text = (
        frame.replace("{S}", cap(statement)).replace("{s}", lower(statement)).replace("{p}", str(rng.randint(80, 99)))
    )
    text = text.replace("{unit}", rng.choice(_UNITS))
    while "{n}" in text:
        text = text.replace("{n}", str(rng.randint(2, rng.choice((9, 60, 500)))), 1)
    return text


def terse(statement: str, rng: random.Random) -> str:
    """The statement as people jot it down: small words dropped, or no accents, or all in lower case."""
    style = rng.random()
    if style < 0.4:
        return statement
    words = statement.split()
    if style < 0.65:
        words = [w for i, w in enumerate(words) if i == 0 or w not in _SMALL or rng.random() < 0.4]
    text = " ".join(words)
    if style > 0.8:
        text = "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c) or c == "\u0303")
        text = unicodedata.normalize("NFC", text)
    return text.lower() if style > 0.9 else text


def _heading(statement: str, rng: random.Random) -> str:
    words = statement.split()[: rng.randint(4, 11)]
    while len(words) > 2 and words[-1].lower() in _SMALL:
        words.pop()
    return cap(" ".join(words)).rstrip(",;:.(")


def _asked(rng: random.Random, order: str, material: str, answer: str) -> Document:
    """One exchange; the order stands in the system prompt or before or after the material."""
    rules = " ".join(rng.sample(_RULES, rng.randint(0, 3)))
    who = f"Eres {rng.choice(_WHO)}. {rules}".strip()
    place = rng.random()
    if place < 0.5:
        return [
            {"role": "system", "content": f"{who} {order}"},
            {"role": "user", "content": material},
            {"role": "assistant", "content": answer},
        ]
    user = f"{order}\n\n{material}" if place < 0.85 else f"{material}\n\n{order}"
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return [{"role": "system", "content": who}, *messages] if place < 0.75 else messages


def keys_named(fields: list[tuple[str, str, Json]], rng: random.Random) -> str:
    """The keys as a prompt lists them, half of the time with what each means."""
    if rng.random() < 0.5:
        return "; ".join(f"«{key}» ({meaning})" for key, meaning, _ in fields)
    return ", ".join(f'"{key}"' for key, _, _ in fields)


def prose_to_object(library: Library, rng: random.Random) -> Document:
    """A text and some points; the answer is one object with several fields made from them."""
    text = library.excerpt(rng, rng.randint(250, 900))
    points = library.statements(rng, rng.randint(3, 9))
    frames = rng.sample(_RESTATED, rng.randint(1, 6))
    fields: list[tuple[str, str, Json]] = []

    def add(names: tuple[str, ...], meaning: str, value: Json) -> None:
        key = rng.choice(names)
        if all(key != other for other, _, _ in fields):
            fields.append((key, meaning, value))

    def noted(low: int, high: int) -> list[Json]:
        return [
            cap(s) for s in rng.sample(text + library.statements(rng, 2), k=min(len(text) + 2, rng.randint(low, high)))
        ]

    if rng.random() < 0.5:
        add(_CODED_AS, "código", f"{rng.choice(('REF', 'PT', 'DOC', 'N', 'EXP'))}-{rng.randint(1, 999):03d}")
    add(_NAMED_AS, "de qué se trata, en pocas palabras", _heading(rng.choice(text + points), rng))
    start = rng.randrange(len(text))
    add(_TOLD_AS, "dos o tres frases del texto", " ".join(text[start : start + rng.randint(1, 3)]))
    if rng.random() < 0.5:
        chosen = sorted(rng.sample(range(len(points)), 2))
        joined = "; además, ".join(lower(points[i]) for i in chosen)
        add(_TOLD_AS, "lo que se pide, en una frase", f"Se pide lo siguiente: {joined}.")
    add(_LISTED_AS, "cada punto, con una medida", [restated(loosely(p, rng), rng.choice(frames), rng) for p in points])
    for _ in range(rng.randint(0, 3)):
        add(_NOTED_AS, "frases del texto que conviene recordar", noted(2, 4))
    if rng.random() < 0.25:
        add(_LISTED_AS, "los puntos, copiados", [cap(p) for p in points])
    if rng.random() < 0.6:
        ranks = rng.choice(_RANKS)
        add(_RANKED_AS, f"{', '.join(ranks[:-1])} o {ranks[-1]}", rng.choice(ranks))
    if rng.random() < 0.35:
        rng.shuffle(fields)
    named = keys_named(fields, rng)
    order = rng.choice(
        (
            "Responde con un objeto JSON con estas claves: {}.",
            "Convierte la entrada en JSON con los campos {}.",
            "Lee el texto y los puntos y escribe la ficha en JSON: {}.",
            "Devuelve un JSON válido, con sangría de dos espacios y las claves {}.",
        )
    ).format(named)
    asked = [terse(p, rng) for p in points]
    body = " ".join(text)
    if rng.random() < 0.6:
        material = dumps({rng.choice(_INPUTS): body, rng.choice(_ITEMS): list[Json](asked)})
    else:
        style = rng.choice(_STYLES)
        numbered = "\n".join(style.format(p, n=i + 1, a="abcdefghijk"[i]) for i, p in enumerate(asked))
        material = f"{body}\n\n{numbered}"
    return _asked(rng, order, material, dumps({key: value for key, _, value in fields}))


def continuation(library: Library, rng: random.Random) -> Document:
    """The beginning of a text; the answer goes on."""
    text = library.excerpt(rng, rng.randint(500, 2500))
    cut = max(1, len(text) // rng.choice((3, 2, 6)))
    order = rng.choice(
        ("Continúa el texto.", "Sigue escribiendo.", "Escribe lo que viene después.", "Completa el manual.")
    )
    return _asked(rng, order, " ".join(text[:cut]), " ".join(text[cut:]))


def list_rewriting(library: Library, rng: random.Random) -> Document:
    """Points in one form; the answer has each of them in another."""
    points = library.statements(rng, rng.randint(2, 9))
    frame = rng.choice(_RESTATED)
    style = rng.choice(_STYLES)
    asked = "\n".join(style.format(terse(p, rng), n=i + 1, a="abcdefghijk"[i]) for i, p in enumerate(points))
    whole = [cap(p) + "." for p in points]
    if rng.random() < 0.5:
        whole = [restated(p, frame, rng) for p in points]
        sample = restated("se guarda el documento", frame, rng)
        order = f"Reescribe cada punto como en este ejemplo: «{sample}»"
    else:
        order = "Escribe cada punto completo y con su ortografía."
    if rng.random() < 0.5:
        return _asked(rng, f"{order} Devuelve una lista JSON.", asked, dumps(list[Json](whole)))
    return _asked(rng, f"{order} Una línea por punto.", asked, "\n".join(f"{i}. {w}" for i, w in enumerate(whole, 1)))


def gaps(library: Library, rng: random.Random) -> Document:
    """A text with words taken out and listed; the answer is the text."""
    text = " ".join(library.excerpt(rng, rng.randint(150, 500)))
    words = text.split()
    places = sorted(rng.sample(range(len(words)), max(1, len(words) // rng.randint(6, 14))))
    missing = [words[i] for i in places]
    rng.shuffle(missing)
    holed = " ".join("____" if i in set(places) else w for i, w in enumerate(words))
    return _asked(rng, f"Rellena los huecos con estas palabras: {', '.join(missing)}", holed, text)


def found_sentence(library: Library, rng: random.Random) -> Document:
    """Which sentence of a text names a word; the answer is that sentence."""
    text = library.excerpt(rng, rng.randint(300, 1200))
    target = rng.choice(text)
    words = [w.strip(".,;:()«»¿?¡!") for w in target.split()]
    word = rng.choice([w for w in words if len(w) > 6] or words)
    first = next(s for s in text if word in s)
    return _asked(rng, f"Copia la primera frase del texto que contiene «{word}».", " ".join(text), first)


# Kind -> how many of every hundred conversations over prose.
KINDS: dict[Callable[[Library, random.Random], Document], int] = {
    prose_to_object: 45,
    continuation: 20,
    list_rewriting: 20,
    gaps: 8,
    found_sentence: 7,
}


def conversation(library: Library, rng: random.Random) -> Document:
    """One conversation of any kind."""
    return rng.choices(list(KINDS), list(KINDS.values()))[0](library, rng)
