"""Briefs put together from real prose, and answers composed from pieces of them.

A good answer about a stranger's brief is new sentences made of the brief's own words: its nouns in a title, its
requests told by a role, its figures in a promise. Here the brief is real prose with invented names and figures, and
every field of the answer is built around phrases taken from it. The objects have other keys than an Epic, and the
prompt names them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from tools.corpus.documents import _STYLES, Document, Json, dumps
from tools.corpus.prose_documents import (
    _CODED_AS,
    _INPUTS,
    _ITEMS,
    _RANKED_AS,
    _RANKS,
    _RESTATED,
    Library,
    _asked,
    keys_named,
    loosely,
    lower,
    restated,
    terse,
)
from tools.corpus.sentences import _IRREGULAR, _REGULAR_AR, _REGULAR_ER_IR, cap, conjugate, pool

Card = TypeVar("Card")

_NOUN = r"(?!(?:para|como|cuando|este|esta|está|todo|toda|todos|todas)\b)[a-zñáéíóú]{4,14}"
# "la copia", "los datos de la cuenta": an article, a noun and what depends on it with "de".
_PHRASE = re.compile(
    rf"\b(el|la|los|las|un|una|su|sus|cada) ({_NOUN}(?: (?:de|del|de la|de los|de las) {_NOUN}){{0,2}})\b"
)
_FIGURE = re.compile(r"\b\d[\d.,]*(?: ?%| €| \w{3,})(?: de \w{4,})?")
_SYLLABLES = (
    "al ar ba bel ca cor da den el fer ga gor jo la lin ma mon na nor or pal que ra ros sa sol ta ter va ver vi zal"
).split()

_KIND_OF_PLACE = pool(
    """
Hospital|Cooperativa|Banco|Ayuntamiento de|Grupo|Clínica|Distribuidora|Talleres|Editorial|Universidad de|Puerto de|
Hotel|Bodegas|Farmacias|Transportes|Museo|Colegio|Aguas
de|Seguros|Laboratorio|Fundación|Autobuses|Granja|Inmobiliaria
"""
)
# What people write about their case. {np} and {np2} are phrases of the text, without article.
_FACTS = pool(
    """
{name} tiene {n} {ns}.|Hoy hay {n} {ns} y {n} {ns}.|Somos {n} personas.|Presupuesto de {n} € y {n} meses.|El {p} %
de {np} se hace a mano.|{name} atiende {n} {ns} al mes.|Cada {ns} tarda {n} minutos.|Plazo: {date}.|En {name2} pasó
{n} veces con {np}.|El año pasado hubo {n} {ns} sin {np}.|Con {acronym} en {n} puestos.|Lo pide {who} de {name2}.|De
{n} {ns}, {n} llegan tarde.|{who}: «{np}, lo primero».|Se usa {acronym} desde {year}.|Coste actual: {n} € por
{np}.|Hay que cumplir {law}.|Antes de {date} debe estar {np}.|Ojo con {np}: {n} quejas.|{name} ({name2}), {n} {ns},
{n} {ns}.|Nota de voz de {who}, {name}.|Acta del {date}, {name}.|Equipo: {n} personas, {n} de ellas en
{name2}.|{law} obliga a guardar {np}.
"""
)
_WHOSE = pool(
    """
jefa de turno|jefe de almacén|operario|operaria de línea|cliente|clienta|usuaria|administrativo|responsable de
calidad| técnica de soporte|técnico de campo|enfermera|médico de
guardia|alumna|docente|conductor|repartidora|auditor|inspectora|
gerente|directora|cajera|comercial|analista|contable|tesorera|vecino|socia|proveedor|coordinador|supervisora|vigilante|
recepcionista|mecánico|abogada|comprador|planificador|encargada|secretaria|voluntario|delegada de protección de
datos
"""
)
_THING = pool(
    """
Portal|Registro|Control|Aviso|Consulta|Panel|Gestión|Alta|Seguimiento|Migración|Renovación|Módulo|Servicio|Tablero|
Integración|Automatización|Cálculo|Reserva|Validación|Archivo|Buscador|Planificador|Alerta|Lectura|Firma|Asistente|
Conciliación|Sustitución|Traza|Ficha|Carga|Reparto|Agenda|Catálogo|Bandeja|Conexión|Detección|Previsión|Pago
"""
)
_HEADED = pool(
    """
{thing} de {any}|{thing} de {any} para {np2}|{thing} de {any} con {np2}|{thing} y {thing2} de {any}|{Np} sin
{np2}|{thing} de {any} en {name}|{Np} con {np2} y {np3}|{core}|{core} en {name}|{thing} de {any} desde {np2}|{Np}:
{np2} y {np3}|{thing} para {np} de {name}|De {np} a {np2}|{Np} en {acronym}|{thing} de {any} antes de {date}
"""
)
_TOLD = pool(
    """
{core} y {core2}, con {np} como apoyo.|{thing} que permite {core} y {core2}.|Dar a {who} {np} para {core}.|Se trata
de {core}, {core2} y {core3}.|{name} podrá {core}; además, {core2}.|Unir {np} y {np2} para {core}.|{thing} de {any}
con el que {who} podrá {core} sin depender de {np2}.|Cambiar {np} por {np2}: {core} y {core2}.|Llevar {np} a {np2},
de modo que {who} pueda {core}.|Construir {thing} de {any} que sirva para {core}.|Ordenar {np}: {core}, {core2} y
{core3}.|{core} para {who}; {np} y {np2} quedan en un solo sitio.|Renovar {np} de {name} para {core} y dejar
registro de {np2}.|Conectar {np} con {np2} para {core}, sin perder {np3}.|Reunir {np}, {np2} y {np3} en {acronym}.
"""
)
_THEN = pool(
    """
También permite {core}.|Se cuenta con {fig}.|No cambia {np}.|{Np} y {np2} siguen como están.|Debe estar para
{date}.| Cumple {law}.|{who} revisa {np} antes de cerrar.|Todo queda en {acronym}.|Empieza por {np} y sigue con
{np2}.|Sin {np} no se cierra {np2}.|Funciona aunque falte {np}.|{quote}
"""
)
_WORTH = pool(
    """
Evita {np} en {fig}.|Pasar de {fig} a {fig2}.|Con {fig}, quitar {np} ahorra {n} horas al mes.|Recuperar {fig} y
reducir un {p} % {np}.|Bajar {np} de {n} a {n} en {n} meses.|{fig} dejan de depender de {np}.|Atender {fig} sin
sumar {np}.| Reduce {np} y libera a {who} de {np2}.|Ahorra {n} € al año en {np} y evita repetir {fig}.|Que {who} no
pierda {n} horas con {np}.|Cumplir {law} y no perder {fig}.|Si {np} mejora un {p} %, {name} gana {n} € cada
mes.|Acabar con {np}: hoy afecta a {fig}.
"""
)
_VOICED = pool(
    """
Como {who}, quiero {core}, para {end}.|Como {who}, quiero {core} para {end}.|Como {who} de {name}, quiero {core},
para {end}.|Como {who}, necesito {core}, para {end}.|Como {who} con {np}, quiero {core}, para {end}.
"""
)
_END = pool(
    """
no perder {np}|no repetir {np}|saber {np} a tiempo|no depender de {np}|evitar {np}|responder por {np} con pruebas|
ahorrar {n} minutos con {np}|que {np} no falle|cerrar {np} el mismo día|no esperar {np}|decidir sobre {np} con
datos| cumplir {law}|que nadie pregunte por {np}|corregir {np} antes de {np2}|no copiar {np} a mano|atender {np} sin
{np2}| que {who} tenga {np}|no discutir por {np}|llegar a {np} antes|entender {np}
"""
)
_LEFT_OUT = pool(
    """
{Np} de {name2}.|Sustituir {np}.|Cambios en {np}.|{Np} y {np2} quedan para otra fase.|Compra de {ns}.|Formación
sobre {np}.|{Np} anteriores a {year}.|Traducción de {np}.|La versión para {np}.|Decidir {np}: lo hará {who}.|{Np}
fuera de {name}.|Conectar {acronym} con {np}.|Venta de {np} a terceros.
"""
)
_REQUIRED = pool(
    """
Acceso a {np} desde {acronym}.|Contrato de {np}.|Visto bueno de {who} sobre {np}.|Datos de {any} en {acronym}.|API
de {acronym} con {np}.|Credenciales de {np}.|Permiso de {who} para usar {np}.|{Np} facilitado por
{name2}.|Inventario de {ns} y {np2}.|Protocolo de {np}.|Autorización según {law}.|Disponibilidad de {who} para
probar {np}.|Listado de {any}
"""
)
_FEARED = pool(
    """
Que {np} no llegue a {date}.|{Np} puede retrasar {np2}.|{who} puede rechazar {np}.|Si falta {np}, {np2} se detiene.|
Datos de {any} incompletos en {acronym}.|{Np} choca con {np2}: decide {who}.|Que {name2} no entregue
{np}.|Dependencia de {acronym} para {np}.|Un fallo de {np} dejaría {np2} sin servicio.|Que {who} siga usando
{np}.|{Np} puede superar {n} €.| Plazo corto: {np} queda para {date}.
"""
)
_MEASURED = pool(
    """
{Np}: de {n} a {n}.|{Np}: {p} % en {n} meses.|{Np}: menos de {n} al mes.|{Np} sin {np2}: {n} de {n}.|{Np}: cero en
{n} meses.|{Np} por {np2}: de {n} a {n} minutos.|{Np}: {p} % menos que en {year}.|Uso de {np}: {p} % de {np2}.|{Np}:
de {fig} a {n}.|Quejas por {np}: {n} % menos.
"""
)
_LAWS = pool(
    "RGPD|la Ley {n}|la norma ISO {n}|el Decreto {n}/{year}|la NOM-{n}|el reglamento {acronym}|la Resolución {n}"
)
_DATES = pool("el {d} de {month}|{month}|{month} de {year}|fin de {month}|el {d}/{m}|la primera semana de {month}")
_MONTHS = "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split()

# What a field says -> its possible names, how a prompt explains it, its templates, fewest and most entries (0: a text).
_FIELDS: dict[str, tuple[tuple[str, ...], str, tuple[str, ...], int, int]] = {
    "headed": (
        pool("nombre|asunto|rotulo|encabezado|cabecera|tema|titular"),
        "de qué trata, en una línea",
        _HEADED,
        0,
        0,
    ),
    "told": (
        pool("resumen|sintesis|explicacion|alcance|planteamiento|objeto"),
        "qué se hará y para quién",
        _TOLD,
        0,
        0,
    ),
    "worth": (pool("motivo|proposito|ganancia|beneficio|por_que|justificacion"), "qué se gana", _WORTH, 0, 0),
    "voiced": (pool("voces|peticiones|relatos|historias|quien_lo_pide"), "quién lo pide y para qué", _VOICED, 2, 4),
    "left out": (pool("excluido|no_incluye|fuera|descartado|para_despues"), "lo que no se hará", _LEFT_OUT, 1, 4),
    "required": (
        pool("necesita|requisitos_previos|previo|hace_falta|apoyos"),
        "lo que debe existir antes",
        _REQUIRED,
        1,
        4,
    ),
    "feared": (pool("dudas|avisos|peligros|advertencias|amenazas"), "lo que puede salir mal", _FEARED, 1, 4),
    "measured": (pool("indicadores|medidas|metas|cifras|objetivos"), "cómo se sabrá que fue bien", _MEASURED, 1, 4),
}
_CHECKED_AS = pool("comprobaciones|pruebas|verificaciones|condiciones|puntos_de_control|se_acepta_si|controles")
_ORDERS = pool(
    """
Lee el encargo y escribe una ficha en JSON con estas claves: {}.|Responde con un objeto JSON: {}.|Convierte lo que
te cuentan en un objeto JSON con los campos {}.|A partir del texto y de lo que se pide, redacta en JSON {}.|Devuelve
un JSON válido, con sangría de dos espacios y las claves {}.
"""
)


# What a request may begin with -> its infinitive.
_INFINITIVES = {
    form: infinitive
    for infinitive in (*_REGULAR_AR, *_REGULAR_ER_IR, *_IRREGULAR)
    for form in (infinitive, (conjugate(infinitive) or ("",))[0])
}
_ACTIONS = pool(
    """
ver {np}|guardar {np}|consultar {np} y {np2}|registrar {np}|avisar de {np}|medir {np}|cambiar {np} por
{np2}|comparar {np} con {np2}|pedir {np}|recibir {np} a tiempo|revisar {np} con {who}|firmar {np}|cerrar
{np}|encontrar {np}|corregir {np} sin {np2}|enviar {np} a {who}|bloquear {np}|calcular {np}|imprimir {np}|elegir
{np}|anotar {np} con fecha|unir {np} con {np2}|llevar {np} al día|abrir {np} desde {np2}
"""
)


class Deck(Generic[Card]):
    """Cards dealt in order, each once before any comes again: an answer that goes on does not repeat itself."""

    def __init__(self, cards: Iterable[Card]) -> None:
        self.cards = list(dict.fromkeys(cards))
        self.dealt = 0

    def deal(self) -> Card:
        """The next card."""
        self.dealt += 1
        return self.cards[(self.dealt - 1) % len(self.cards)]


class Brief:
    """A text, what is asked, and the phrases and figures that both offer."""

    def __init__(self, library: Library, rng: random.Random) -> None:
        self.rng = rng
        text = library.excerpt(rng, rng.randint(200, 700))
        self.points = library.statements(rng, rng.randint(3, 9))
        self.nouns = self._phrases([*text, *self.points])
        self.cores = self.figures = Deck([""])
        self.names = [self._invented() for _ in range(2)]
        self.acronym = "".join(rng.choice("ABCDEFGILMNOPRSTUVXZ") for _ in range(rng.randint(2, 5)))
        self.law, self.date = self.fill(rng.choice(_LAWS)), self.fill(rng.choice(_DATES))
        self.people = Deck(rng.sample(_WHOSE, rng.randint(3, 8)))
        for template in rng.sample(_FACTS, rng.randint(1, 6)):
            text.insert(rng.randint(0, len(text)), cap(self.fill(template)))
        self.text = text[:12]
        self.nouns = self._phrases([*self.text, *self.points])
        self.figures = Deck(_FIGURE.findall(" ".join(self.text)) or [f"{self.number()} casos"])
        cores = [core for core in map(self._core, self.points) if core]
        cores += [self.fill(t) for t in rng.sample(_ACTIONS, 5 - min(4, len(cores)))]
        self.cores = Deck(cores)

    def _phrases(self, texts: list[str]) -> Deck[tuple[str, str]]:
        found = _PHRASE.findall(" ".join(texts).lower()) or [("el", "trabajo")]
        if self.rng.random() < 0.4:
            self.rng.shuffle(found)
        return Deck(found)

    def _noun(self, article: bool | None) -> str:
        """A phrase with its article, without, or either (None)."""
        before, phrase = self.nouns.deal()
        with_article = self.rng.random() < 0.5 if article is None else article
        return f"{before} {phrase}" if with_article else phrase

    def _invented(self) -> str:
        rng = self.rng
        words = ["".join(rng.sample(_SYLLABLES, rng.randint(2, 3))).capitalize() for _ in range(rng.randint(1, 2))]
        return " ".join([rng.choice(_KIND_OF_PLACE), *words] if rng.random() < 0.6 else words)

    @staticmethod
    def _core(point: str) -> str | None:
        """The request as an infinitive with what follows it, cut at a comma; None if it begins with another word."""
        head, _, rest = lower(point).partition(" ")
        infinitive = _INFINITIVES.get(head)
        core = re.split(r"[,;:(]", rest)[0].strip()
        return f"{infinitive} {core}" if infinitive and 2 <= len(core.split()) <= 16 else None

    def number(self) -> str:
        """A figure as people write them."""
        rng = self.rng
        value = rng.randint(2, rng.choice((9, 60, 900, 9000, 900_000)))
        return f"{value:,}".replace(",", rng.choice((".", ".", " ", ",")))

    def fill(self, template: str) -> str:
        """The template with its slots filled, each `{n}` and `{p}` anew."""
        rng = self.rng
        slots: dict[str, Callable[[], str]] = {
            "n": self.number,
            "p": lambda: str(rng.randint(3, 99)),
            "d": lambda: str(rng.randint(1, 30)),
            "m": lambda: str(rng.randint(1, 12)),
            "month": lambda: rng.choice(_MONTHS),
            "year": lambda: str(rng.randint(2015, 2028)),
            "np": lambda: self._noun(True),
            "np2": lambda: self._noun(True),
            "np3": lambda: self._noun(True),
            "ns": lambda: self._noun(False),
            "any": lambda: self._noun(None),
            "Np": lambda: cap(self._noun(None)),
            "name": lambda: self.names[0],
            "name2": lambda: self.names[1],
            "acronym": lambda: self.acronym,
            "law": lambda: self.law,
            "date": lambda: self.date,
            "who": lambda: self.people.deal(),
            "thing": lambda: rng.choice(_THING),
            "thing2": lambda: rng.choice(_THING).lower(),
            "fig": lambda: self.figures.deal(),
            "fig2": self.number,
            "core": lambda: self.cores.deal(),
            "core2": lambda: self.cores.deal(),
            "core3": lambda: self.cores.deal(),
            "end": lambda: self.fill(rng.choice(_END)),
            "quote": lambda: rng.choice(self.text),
        }
        text = re.sub(r"\{(\w+)\}", lambda match: slots[match[1]](), template)
        return text.replace(" de el ", " del ").replace(" a el ", " al ").replace("del el ", "del ")

    def material(self) -> str:
        """The brief as it reaches the model: an object, or a text and a list."""
        rng, body = self.rng, " ".join(self.text)
        asked = [terse(p, rng) for p in self.points]
        if rng.random() < 0.6:
            return dumps({rng.choice(_INPUTS): body, rng.choice(_ITEMS): list[Json](asked)})
        style = rng.choice(_STYLES)
        return f"{body}\n\n" + "\n".join(style.format(p, n=i + 1, a="abcdefghijk"[i]) for i, p in enumerate(asked))


def composed(library: Library, rng: random.Random) -> Document:
    """A brief; the answer is an object whose fields are composed from phrases of it."""
    brief = Brief(library, rng)
    fields: list[tuple[str, str, Json]] = []
    if rng.random() < 0.5:
        fields.append(
            (
                rng.choice(_CODED_AS),
                "código",
                f"{rng.choice(('REF', 'PT', 'DOC', 'N', 'EXP'))}-{rng.randint(1, 999):03d}",
            )
        )
    kinds = [kind for kind in _FIELDS if rng.random() < 0.75]
    for kind in kinds:
        names, meaning, templates, least, most = _FIELDS[kind]
        value: Json
        if most:
            value = [cap(brief.fill(t)) for t in rng.sample(templates, rng.randint(least, most))]
        else:
            value = cap(brief.fill(rng.choice(templates)))
            if kind == "told":
                value = " ".join([value, *(cap(brief.fill(t)) for t in rng.sample(_THEN, rng.randint(0, 2)))])
        fields.append((rng.choice(names), meaning, value))
    frames = rng.sample(_RESTATED, rng.randint(2, 8))
    checks: list[Json] = [restated(loosely(p, rng), rng.choice(frames), rng) for p in brief.points]
    place = rng.randint(min(2, len(fields)), len(fields))
    fields.insert(place, (rng.choice(_CHECKED_AS), "cada punto pedido, de forma que se pueda probar", checks))
    if rng.random() < 0.6:
        ranks = rng.choice(_RANKS)
        fields.append((rng.choice(_RANKED_AS), f"{', '.join(ranks[:-1])} o {ranks[-1]}", rng.choice(ranks)))
    fields = list({key: (key, meaning, value) for key, meaning, value in fields}.values())
    if rng.random() < 0.25:
        rng.shuffle(fields)
    named = keys_named(fields, rng)
    return _asked(
        rng, rng.choice(_ORDERS).format(named), brief.material(), dumps({key: value for key, _, value in fields})
    )
