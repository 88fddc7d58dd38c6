"""The kinds of document in the corpus: each function writes one conversation about one `World`.

Every kind tells the model what to do in the system prompt, in the user's turn or in both, gives it material,
and answers from that material alone. `KINDS` in `generate.py` says how often each one is written.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.corpus.sentences import (
    _TECH,
    CHANNELS,
    FIELDS,
    MONTHS,
    WEEKDAYS,
    Need,
    Slots,
    World,
    bare,
    cap,
    join,
    pool,
    sentence,
)

Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]
Message = dict[str, str]
Document = list[Message]

_quote = json.JSONEncoder(ensure_ascii=False).encode


def dumps(value: Json, indent: int | None = 2, level: int = 0) -> str:
    """`json.dumps(value, ensure_ascii=False, indent=indent)`, several times faster."""
    if isinstance(value, str) or value is None or isinstance(value, (bool, int, float)):
        return _quote(value)
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    if isinstance(value, dict):
        parts = [f"{_quote(k)}: {dumps(v, indent, level + 1)}" for k, v in value.items()]
        opening, closing = "{", "}"
    else:
        parts = [dumps(v, indent, level + 1) for v in value]
        opening, closing = "[", "]"
    if indent is None:
        return opening + ", ".join(parts) + closing
    pad = "\n" + " " * (indent * (level + 1))
    return f"{opening}{pad}{(',' + pad).join(parts)}{pad[:-indent]}{closing}"


# ---------------------------------------------------------------- briefs

_INTRO = pool(
    """
{company}, {industry} con sede en {ciudad}, atiende a {n_300_9000} clientes y da trabajo a {n_20_900}
personas.|{company} ({industry}, {ciudad}) quiere renovar {product} que usa a diario {actor}.|Somos
{company}, {industry} de {ciudad}, {pais}, con {n_2_40} sedes y {n_20_900} empleados.|Trabajamos en
{company}: {industry}, {n_2_40} sedes, casi todas cerca de {ciudad}.|En {company}, {industry} de {pais},
{actor} y {actor2} comparten {obj} a través de {sys}.|{company} lleva {n_3_60} años como {industry} en
{ciudad} y prepara {product} para {actor}.|Contexto: {company}, {industry}; {n_20_900} personas; {ciudad}
({pais}).|La dirección de {company}, {industry} de {ciudad}, ha pedido renovar {product}.|{company} opera en
{ciudad} y en otras {n_2_12} ciudades de {pais} como {industry}.|Cliente: {company} ({industry}). Ciudad:
{ciudad}. Plantilla: {n_20_900} personas.|{product} de {company}, {industry} de {pais}, nació hace {n_2_15}
años y ya no da más de sí.|Escribo desde {company}, {industry} de {ciudad}, donde cada día se mueven
{n_30_900} {plural_n}.|Para {company}, {industry} con {n_2_30} centros en {pais}, lo urgente es ordenar
{plural}.|{company} acaba de abrir su {n_2_9}ª sede en {ciudad} y su actividad de {industry} crece un
{n_5_60} % al año.|A {company}, {industry} de {ciudad}, le toca sustituir {sys} antes de fin de
año.|Hablamos de {company}: una actividad de {industry} con {n_30_900} {plural_n} por semana y {n_2_9}
turnos.
"""
)
_TROUBLE = pool(
    """
Hoy {problem}.|El problema principal: {problem}.|{actor} se queja de que {problem}.|Lo que duele:
{problem}.|Según {actor}, {problem}.|Además, {problem}.|Por si fuera poco, {problem}.|Ahora mismo {problem},
y {actor} lo sufre cada {dia}.|En la última auditoría se vio que {problem}.|Desde {mes}, {problem}.|Todo el
mundo lo sabe: {problem}.|Se ha medido: {problem}.|A {actor} le preocupa que, de momento, {problem}.|Pasa a
diario que {problem}.
"""
)
_LAW = pool(
    """
Hay que cumplir {norm}.|La auditoría de {norm} llega en {mes}.|{norm} obliga a guardar evidencia de cada
paso.|Todo bajo {norm}.|El área legal recuerda que rige {norm}.|Si no se cumple {norm}, la multa puede
llegar a {n_10_900}.000 {moneda}.|El año pasado hubo una observación por incumplir {norm}.|{norm} manda y no
se negocia.
"""
)
_SYSTEM = pool(
    """
Los datos viven en {sys}, que no se puede sustituir este año.|Usamos {sys} y nadie quiere tocarlo.|Convive
con {sys} y con hojas de cálculo.|{sys} seguirá siendo la fuente de verdad.|La conexión con {sys} es
obligatoria.|El proveedor de {sys} solo da soporte hasta {mes}.|De {sys} salen cada noche {n_2_90}.000
registros.|Hay un desarrollo antiguo sobre {sys} que mantiene {persona}.
"""
)
_LIMITS = pool(
    """
El presupuesto es de {n_20_400}.000 {moneda} y la fecha límite, el {fecha}.|Tenemos {n_2_9} meses y un
equipo de {n_2_9} personas.|Debe estar en marcha antes del {fecha}.|Presupuesto cerrado: {n_20_400}.000
{moneda}.|El equipo lo forman {persona}, {persona_b} y {n_1_5} desarrolladores.|Se quiere un piloto en
{ciudad} el {fecha}.|No hay dinero para licencias nuevas: el tope son {n_5_90}.000 {moneda}.|La temporada
alta empieza el {fecha} y para entonces debe funcionar.|{persona} responde del proyecto ante la
dirección.|El plazo aprieta: {n_6_20} semanas, ni una más.|El contrato con el proveedor vence el {fecha}.
"""
)
_CAST = pool(
    """
Intervienen {actors}.|Lo usarán {actors}.|Hemos hablado con {actors}.|Participan {actors}.|Afecta a
{actors}.| Perfiles: {actors}.|Cuentan con ello {actors}.|Trabajan con esto {actors}.|En las entrevistas
salieron {actors}.| Van a usarlo {actors}, cada cual a su manera.|Responden {actors}.|Opinan {actors}.
"""
)
_WISHES = pool(
    """
Se busca {benefit}.|El objetivo es {benefit}.|La meta del año: {benefit}.|{actor} espera {benefit}.|Con esto
queremos {benefit} y {benefit_b}.|Si sale bien, servirá para {benefit}.|La dirección solo pide una cosa:
{benefit}.
"""
)


class BriefSlots(Slots):
    """Slots with a second person and a second benefit."""

    __slots__ = ()

    def __missing__(self, key: str) -> str:
        if key in ("persona_b", "benefit_b"):
            return super().__missing__(key[:-2])
        return super().__missing__(key)


def fill(w: World, template: str) -> str:
    """Fill one template with slots of its own, as a sentence."""
    return sentence(template.format_map(BriefSlots(w)))


def lines(w: World, pool: Sequence[str], count: int) -> list[str]:
    """`count` different templates of a pool, each filled."""
    return [fill(w, t) for t in w.many(pool, count)]


class Brief:
    """A world with a context in prose and its requirements in a fixed order."""

    def __init__(self, w: World, low: int = 3, high: int = 9) -> None:
        self.w = w
        self.needs = w.needs(w.number(low, high))
        self.asks = [n.ask() for n in self.needs]
        v = w.vocabulary
        self.intro = fill(w, w.pick(_INTRO))
        self.facts = lines(w, v.facts, w.number(1, 3))
        self.troubles = []
        for template, problem in zip(w.many(_TROUBLE, w.number(1, 2)), w.problems, strict=False):
            slots = BriefSlots(w)
            slots["problem"] = problem
            self.troubles.append(sentence(template.format_map(slots)))
        self.law = fill(w, w.pick(_LAW))
        self.system = fill(w, w.pick(_SYSTEM))
        self.limits = lines(w, _LIMITS, w.number(1, 2))
        self.wish = fill(w, w.pick(_WISHES))
        rest = [*self.facts, *self.troubles, self.system, *self.limits]
        rest.append(self.law)
        if w.chance(0.4) or sum(bare(a) in self.intro for a in w.actors) < 2:
            rest.append(fill(w, w.pick(_CAST).format(actors=join(w.many(w.actors, w.number(2, 4))))))
        if w.chance(0.5):
            rest.append(self.wish)
        if w.chance(0.4):
            w.rng.shuffle(rest)
        self.sentences = [self.intro, *rest]
        self.context = " ".join(self.sentences)
        if w.chance(0.3):
            self.context = _voice(w, self.context)
        w.narrow("\n".join([self.context, *self.asks]))


_OPENERS = pool(
    """
Hola, equipo:|Buenas tardes:|Correo de {persona} ({company}):|Nota de voz transcrita: bueno, a ver,|Ticket
{codigo}.|Acta del {fecha}.|Chat con {persona}:|Resumen de la llamada con {persona}:|Pliego, apartado
{n_2_9}.{n_1_9}:|Apuntes rápidos.|Mensaje de {actor}:|Urgente:|Buenos días, os paso lo hablado.|Te
cuento:|Antecedentes.|[{n_8_18}:{n_10_59}] {persona}:|A quien corresponda:
"""
)
_CLOSERS = pool(
    """
Gracias, {persona}.|Un saludo, {persona}.|Eso es todo.|¿Lo vemos el {dia}?|Quedo a la espera.|Y poco
más.|Contesto dudas el {dia}.|Adjunto detalle en {codigo}.|Ojalá se pueda.|Firmado: {persona}.
"""
)


def _voice(w: World, text: str) -> str:
    opener = w.pick(_OPENERS).format_map(BriefSlots(w))
    closer = w.pick(_CLOSERS).format_map(BriefSlots(w)) if w.chance(0.6) else ""
    return f"{opener} {text} {closer}".strip()


_STYLES = (
    "- {}",
    "* {}",
    "{n}. {}",
    "{n}) {}",
    "{a}) {}",
    "R{n}: {}",
    "• {}",
    "{}",
    "[{n}] {}",
    "— {}",
    "REQ-{n:02d} {}",
)


def listed(w: World, items: Sequence[str], style: str | None = None) -> str:
    """Items one a line, in one of several list styles."""
    style = style or w.pick(_STYLES)
    return "\n".join(
        style.format(item, n=i + 1, a="abcdefghijklmnopqrstuvwxyz"[i % 26]) for i, item in enumerate(items)
    )


# ---------------------------------------------------------------- prompts

_WHO = pool(
    """
analista de negocio|analista funcional|jefa de proyecto|redactor técnico|responsable de calidad|arquitecta
de software|consultor|asistente de un equipo de desarrollo|secretaria técnica|experto en
documentación|asesora de operaciones|ingeniero de requisitos|asistente de {company}|ayudante de
{actor}|especialista en {industry}|documentalista|coordinadora de producto|experto en
pruebas|editor|asistente bilingüe|agente de soporte de segundo nivel|auditora interna|consultora de
procesos|jefe de operaciones|scrum master|analista de datos|formador|gestora de cambios|técnica de
normalización|asistente virtual|perito informático|director de programa
"""
)
_HOW = pool(
    """
Respondes en español.|Responde siempre en español claro.|No inventes nombres ni cifras que no estén en el
material.|Respeta el orden de los puntos.|No te dejes ningún punto.|Usa las mismas palabras del original
para nombres, sistemas y cantidades.|Sé concreto.|Escribe con frases cortas.|Cada punto recibe exactamente
una respuesta.|Nada de introducciones ni despedidas.|Devuelve solo lo pedido.|Mantén el tono
profesional.|Las cifras se copian tal cual.|Los códigos se copian letra por letra.|Evita adjetivos
vacíos.|Prefiere verbos a sustantivos.|Donde el original sea vago, propón una medida.|No repitas una frase
entera del original.|Si falta un dato, elige uno prudente.|Conserva los nombres propios.|El lector es
{actor}.|Escribes para la dirección de {company}.|El destinatario no es técnico.|Termina cuando acabe la
respuesta.|No expliques tu razonamiento.|Ten en cuenta {norm}.|No cambies el significado.|Trabajas con rigor
y sin rodeos.|Piensas en quien va a probarlo.|Tu respuesta se guardará en {sys}.
"""
)
_HOW_JSON = pool(
    """
La respuesta es JSON válido y nada más.|Devuelve únicamente el objeto JSON.|Sin texto antes ni después del
JSON.|Sin vallas de código.|Usa comillas dobles y ninguna coma final.|Sangría de dos espacios.|Respeta los
nombres y el orden de las claves.|Escapa las comillas dentro de las cadenas.|No añadas claves.|Cierra el
objeto y termina.|Otro programa leerá tu salida: ha de ser JSON correcto.
"""
)


def persona(w: World, is_json: bool) -> str:
    """The general part of a system prompt."""
    who = w.pick(_WHO).format_map(w.slots)
    opening = w.pick(
        (
            "Eres {}.",
            "Actúas como {}.",
            "Tu papel: {}.",
            "Trabajas de {}.",
            "Te comportas como {}.",
            "Eres {} con {k} años de oficio.",
            "Haces de {} en un equipo de {k} personas.",
            "Asistente: {}.",
        )
    ).format(who, k=w.number(3, 20))
    rules = w.many(_HOW, w.pick((0, 1, 1, 2, 3, 5)))
    if is_json and w.chance(0.75):
        rules += w.many(_HOW_JSON, w.number(1, 3))
    rules = [r.format_map(w.slots) for r in rules]
    if len(rules) > 3 and w.chance(0.5):
        heading = w.pick(("Reglas", "Normas", "Instrucciones", "Ten presente"))
        return f"{opening}\n\n{heading}:\n{listed(w, rules, w.pick(_STYLES[:3]))}"
    return " ".join([opening, *rules])


def with_order(who: str, order: str) -> str:
    """An order after the general part, on its own line when that part is a list."""
    return f"{who}\n\n{order}" if "\n" in who else f"{who} {order}"


def talk(w: World, order: str, material: str, answer: str, is_json: bool = False, system: str = "") -> Document:
    """A conversation of one exchange; the order stands in the system prompt or in the user's turn."""
    chance = w.random()
    order = cap(order)
    if system:
        order_in_system = True
        text = with_order(persona(w, is_json), f"{order} {system}") if w.chance(0.7) else f"{order} {system}"
    else:
        order_in_system = chance < 0.45
        text = with_order(persona(w, is_json), order) if order_in_system else persona(w, is_json)
    user = material
    if not order_in_system:
        glue = w.pick(("\n\n", "\n\n", "\n", "\n---\n", "\n\n"))
        user = f"{order}{glue}{material}" if w.chance(0.75) or not material else f"{material}{glue}{order}"
        user = user.strip()
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    if order_in_system or chance > 0.6:
        messages.insert(0, {"role": "system", "content": text})
    return messages


def then(document: Document, question: str, answer: str) -> Document:
    """One more exchange."""
    return [*document, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# ---------------------------------------------------------------- JSON of many shapes


@dataclass(frozen=True)
class Role:
    """One field of an answer: the names it may carry, how a prompt describes it, what it holds."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    write: Callable[[Brief], Json]
    sample: str = "..."


def _mixed(b: Brief, forms: Sequence[str]) -> list[Json]:
    form = b.w.pick(forms)
    second = b.w.pick(forms) if b.w.chance(0.3) else form
    return [n.say(form if b.w.random() < 0.6 else second) for n in b.needs]


def _some(low: int, high: int, *pools: Sequence[str]) -> Callable[[Brief], Json]:
    def write(b: Brief) -> Json:
        return list[Json](lines(b.w, b.w.pick(pools), b.w.number(low, high)))

    return write


_TITLES = pool(
    """
{company}: {product} para {actor}|{product} de {company}|Control de {plural} en {company}|Gestión de
{plural} con {sys}|{company} sin hojas de cálculo|Seguimiento de {plural} y {plural2}|{obj}: de {sys} a
{product}|Alta y control de {plural}|{product}: {plural} bajo {norm}|Orden en {plural} antes del
{fecha}|Trazabilidad de {plural} en {ciudad}|{plural} al día para {actor}|Relevo de {sys} en
{company}|Digitalización de {plural} en {company}|{actor} y {plural}: un solo circuito|Menos errores con
{plural} en {company}
"""
)
_SUMMARIES = pool(
    """
{company} necesita {product} que permita {a} y {b}, para {benefit}.|El encargo de {company} pide {a}, {b} y
{c}, con {sys} como apoyo.|En {company}, {problem}; por eso se pide {a} y {b}.|{product} ayudará a {actor}
con {plural} y resolverá el problema: {problem}.|Se trata de {a}, de {b} y de respetar {norm} en todo
momento.|La propuesta cubre {k} puntos para {actor} y {actor2}, desde {a} hasta {b}.|Con {product},
{company} podrá {a}; también {b}, antes del {fecha}.|{actor} dejará de depender de {sys} y podrá {a}.
"""
)
_EXCLUSIONS = pool(
    """
La sustitución de {sys} queda para otra fase.|No se incluye {a}.|Queda fuera {a}, que se verá en {mes}.|No
se aborda la compra de {device}.|Las sedes de fuera de {ciudad} no entran en esta entrega.|No se modifica
{sys}.|Fuera de este alcance: traducir al {idioma}.|No se migran datos de más de {n_2_10} años.|Nada de
{tech} en esta entrega.|No se cambia el contrato con {sys}.|La formación externa no está incluida.
"""
)
_NEEDED = pool(
    """
Acceso de lectura a {sys} antes del {fecha}.|Credenciales de prueba de {sys} para {n_2_9} personas.|Visto
bueno de {actor} sobre {obj}.|Informe legal sobre {norm}.|Disponibilidad de {actor} {n_2_9} horas por
semana.|Datos limpios de {plural} en {sys}.|Compra de {n_5_60} dispositivos para {actor}.|Entorno de
preproducción con {n_2_90}.000 registros.|API de {sys} documentada y con {tech}.|Contrato firmado con el
proveedor de {sys}.|Presupuesto aprobado en {mes}.
"""
)
_DANGERS = pool(
    """
{risk}: se mitiga con un piloto de {n_2_8} semanas en {ciudad}.|{risk}.|{risk}; responde {actor}.|Puede
ocurrir {risk}, y entonces se aplaza {obj}.|Que {sys} no aguante {n_20_900} peticiones por minuto.|Que
{actor} no adopte {product} y siga con hojas de cálculo.|Retraso del proveedor de {sys} más allá del
{fecha}.|Que los datos de {plural} lleguen incompletos o duplicados.|Que la auditoría de {norm} exija
cambios de última hora.|Que falte formación para {actor} antes del {fecha}.|Coste de {sys} superior a
{n_200_9000} {moneda} al mes.
"""
)
_KPIS = pool(
    """
{metric}: de {n_40_90} a {n_5_39} en {n_2_9} meses.|{metric}: mejora del {n_10_60} % antes del
{fecha}.|{metric} por debajo de {n_2_30} al cierre del trimestre.|Reducir un {n_10_60} % el indicador
«{metric}», hoy en {n_40_90}.|{p_80_99} % de {plural} sin incidencias en {n_2_9} meses.|Reclamaciones de
{actor}: menos de {n_2_9} al mes.|Uso diario de {product} por el {p_70_95} % de la plantilla en {n_4_12}
semanas.|Satisfacción de {actor} de al menos {n_4_8},{n_1_9} sobre 10.|Tiempo dedicado a {plural}: de
{n_30_90} a {n_5_25} minutos.
"""
)
_INTERESTS = pool(
    """
{actor}: {benefit}.|{actor}: quiere {benefit}.|{actor}: decide sobre {obj}.|{actor}: usa {product} {n_2_40}
veces al día.|{actor}: revisa {plural}.|{actor}: aporta los datos de {sys}.|{actor}: firma la
aceptación.|{actor}: teme {risk}.
"""
)
_OPEN = pool(
    """
¿Quién decide cuando falta {campo} en {obj}?|¿Cuántos turnos usan {sys} a la vez?|¿Hay copia de {plural}
fuera de {sys}?|¿Quién paga el mantenimiento de {product}?|¿Puede {actor} trabajar sin conexión?|¿Qué pasa
con {plural} de años anteriores?|¿Se acepta {tech} en la red de {company}?|¿{norm} obliga a avisar a
{actor}?|¿Desde qué fecha cuentan los {n_30_365} días?|¿Hay presupuesto para {n_5_60} dispositivos más?
"""
)
_VALUES = pool(
    """
Ahorra {n_2_40} horas por semana a {actor} y ataca el problema de fondo: {problem}.|Reduce un {n_10_60} %
los errores con {plural} en {n_2_9} meses.|Permite {benefit} y {benefit_b}.|Evita sanciones por {norm} de
hasta {n_10_900}.000 {moneda}.|Recupera la inversión en {n_6_20} meses gracias a {n_20_400} {plural_n} más
por mes.|Sin este cambio, {problem}; con él, {actor} gana {n_10_90} minutos por turno.|Libera a {actor} de
{n_2_20} tareas repetidas y sirve para {benefit}.
"""
)
_STEPS = pool(
    """
Semana {k}: {a}.|Fase {k}: {a}, con {actor}.|Etapa {k}: piloto en {ciudad} con {n_5_40} usuarios.|Mes {k}:
conexión con {sys}.|Paso {k}: formación de {actor}.|Hito {k}: revisión de {norm}.|Bloque {k}: {a} y
{b}.|Entrega {k}: {plural} en {product}.|Tramo {k}: migración desde {sys}.
"""
)


def core_of(need: Need) -> str:
    """The requirement as an infinitive or, failing that, quoted."""
    if need.archetype.infinitive:
        return need.slots["inf"]
    return f"{need.world.pick(('cumplir', 'atender', 'resolver'))} «{need.text}»"


class NeedSlots(BriefSlots):
    """Slots whose `a`, `b`, `c` are requirements of the brief, in its order; `k` counts."""

    __slots__ = ()

    def __init__(self, b: Brief, k: int) -> None:
        super().__init__(b.w)
        chosen = sorted(b.w.rng.sample(range(len(b.needs)), min(3, len(b.needs))))
        cores = [core_of(b.needs[i]) for i in chosen]
        self["a"], self["b"], self["c"] = cores[0], cores[len(cores) // 2], cores[-1]
        self["k"] = str(k)


def about(b: Brief, template: str, k: int = 0) -> str:
    """Fill a template that may name requirements of the brief."""
    return sentence(template.format_map(NeedSlots(b, k or len(b.needs))))


def _unasked(b: Brief, template: str) -> str:
    slots = BriefSlots(b.w)
    if "{a}" in template:
        slots["a"] = Need(b.w, b.w.pick(b.w.vocabulary.actions)).slots["inf"]
    return sentence(template.format_map(slots))


def summary(b: Brief, count: int = 0) -> str:
    """One to three sentences about the brief."""
    return " ".join(about(b, t) for t in b.w.many(_SUMMARIES, count or b.w.number(1, 3)))


def interests(b: Brief) -> list[Json]:
    """What each role of the brief cares about."""
    actors = b.w.many(b.w.actors, 4)
    interested: list[Json] = []
    for actor in actors:
        slots = BriefSlots(b.w)
        slots["actor"] = actor
        interested.append(sentence(b.w.pick(_INTERESTS).format_map(slots)))
    return interested


def title(b: Brief) -> str:
    """A title without a period."""
    return cap(b.w.pick(_TITLES).format_map(BriefSlots(b.w)))


def exclusions(b: Brief) -> list[Json]:
    """Two to four things that were not asked for."""
    return [_unasked(b, t) for t in b.w.many(_EXCLUSIONS, b.w.number(2, 4))]


def stories(b: Brief) -> list[Json]:
    """Two to five needs told by a role."""
    chosen = sorted(b.w.rng.sample(range(len(b.needs)), min(b.w.number(2, 5), len(b.needs))))
    return [b.needs[i].say("story") for i in chosen]


def steps(b: Brief) -> list[Json]:
    """Three to five numbered phases, all of one naming."""
    template = b.w.pick(_STEPS).split("{k}")[0]
    pool = [t for t in _STEPS if "{k}" in t]
    return [about(b, template + "{k}:" + b.w.pick(pool).split("{k}:")[1], i + 1) for i in range(b.w.number(3, 5))]


def figures(texts: Sequence[str]) -> list[Json]:
    """The figures of texts, in order, each with the word that follows it."""
    found = re.findall(r"\d[\d.,:]*(?:\s?%| \w+)?", " ".join(texts))
    return [f.rstrip(".,:") for f in found]


def _levels(b: Brief) -> Json:
    return b.w.pick(b.w.pick(_LEVELS))


_LEVELS = (
    ("alta", "media", "baja"),
    ("Alta", "Media", "Baja"),
    ("urgente", "normal", "puede esperar"),
    ("crítica", "alta", "media", "baja"),
    ("P1", "P2", "P3"),
    ("imprescindible", "deseable", "opcional"),
    ("rojo", "ámbar", "verde"),
    ("A", "B", "C"),
    ("Must", "Should", "Could"),
)

ROLES: dict[str, Role] = {
    "items": Role(
        tuple(
            """
        criterios comprobaciones condiciones puntos verificaciones compromisos respuestas cobertura
        entregables reglas acuerdos exigencias garantias pruebas checks conditions commitments coverage
        condiciones_de_entrega puntos_verificables lista_de_control se_acepta_si definicion_de_hecho
        detalle desarrollo cumplimiento lineas evidencias medidas done_when rules proof
        condiciones_medibles trazabilidad control_de_puntos especificaciones
        """.split()
        ),
        (
            "una frase por cada punto recibido, en el mismo orden, con un dato que se pueda comprobar",
            "cada elemento de la lista, reescrito y con una medida",
            "lista: por cada petición, su condición verificable con sus mismas palabras",
            "todas las peticiones, una a una, dichas de forma comprobable",
            "tantas frases como puntos de entrada, sin saltarse ninguno",
            "qué se comprobará de cada punto, con cifra, plazo o responsable",
            "por orden, lo que debe cumplirse en cada caso",
            "array de cadenas, una por requisito, con detalle medible",
        ),
        lambda b: _mixed(b, ("statement", "statement", "statement", "when", "when", "test", "promise")),
        '["..."]',
    ),
    "tests": Role(
        tuple(
            (
                "ensayos casos_de_prueba preguntas_de_control plan_de_pruebas tests "
                "demostraciones guion_de_prueba revisiones"
            ).split()
        ),
        (
            "una prueba por punto, en orden",
            "cómo se prueba cada punto recibido",
            "lista de pruebas, una por petición",
        ),
        lambda b: _mixed(b, ("test", "test", "question", "when")),
        '["..."]',
    ),
    "title": Role(
        tuple(
            (
                "titulo nombre encabezado asunto rotulo name heading etiqueta_principal "
                "denominacion proyecto tema title"
            ).split()
        ),
        ("título breve", "de cinco a doce palabras", "nombre del encargo", "cadena corta, sin punto final"),
        title,
    ),
    "summary": Role(
        tuple(
            (
                "resumen sintesis vision_general proposito en_breve overview extracto objetivo "
                "planteamiento descripcion idea que_se_pide summary goal"
            ).split()
        ),
        (
            "dos o tres frases",
            "resumen del encargo",
            "qué se pide y para quién",
            "párrafo corto con lo esencial",
        ),
        summary,
    ),
    "value": Role(
        tuple(
            (
                "beneficio por_que valor_esperado retorno motivo justificacion impacto "
                "ganancia benefit rationale why para_que_sirve"
            ).split()
        ),
        ("por qué merece la pena, con una cifra", "el beneficio, medido", "una frase sobre lo que se gana"),
        lambda b: " ".join(lines(b.w, _VALUES, b.w.number(1, 2))),
    ),
    "stories": Role(
        tuple(
            (
                "historias relatos casos_de_uso voces necesidades escenarios usos_previstos "
                "use_cases lo_que_piden peticiones_por_rol"
            ).split()
        ),
        (
            "de dos a cinco frases «Como..., quiero..., para...»",
            "lo que quiere cada rol, en primera persona",
            "lista de relatos por rol",
        ),
        stories,
        '["..."]',
    ),
    "exclusions": Role(
        tuple(
            (
                "exclusiones fuera_de_alcance no_incluye limites descartes queda_para_despues "
                "not_included aplazado no_se_hara fronteras"
            ).split()
        ),
        ("lo que no entra", "qué se deja fuera", "de dos a cuatro exclusiones"),
        exclusions,
        '["..."]',
    ),
    "needed": Role(
        tuple(
            (
                "dependencias requisitos_previos condiciones_previas necesita prerequisites "
                "bloqueos apoyos hace_falta terceros insumos"
            ).split()
        ),
        ("de qué depende", "lo que tiene que estar antes", "accesos, permisos y personas necesarias"),
        _some(2, 4, _NEEDED),
        '["..."]',
    ),
    "dangers": Role(
        tuple(
            (
                "riesgos amenazas peligros puntos_debiles alertas hazards lo_que_puede_fallar "
                "incertidumbres preocupaciones risks"
            ).split()
        ),
        ("qué puede salir mal", "de dos a cuatro riesgos", "riesgos con su respuesta"),
        _some(2, 4, _DANGERS),
        '["..."]',
    ),
    "kpis": Role(
        tuple(
            (
                "indicadores kpis metricas medicion exito_si metas objetivos_medibles "
                "resultados_esperados targets numeros termometro"
            ).split()
        ),
        ("cómo se mide, con línea base o meta", "indicadores con cifra", "de dos a cuatro metas medibles"),
        _some(2, 4, _KPIS),
        '["..."]',
    ),
    "people": Role(
        tuple(
            (
                "interesados roles actores partes participantes afectados publico stakeholders quien_lo_usa perfiles"
            ).split()
        ),
        ("quién participa y qué le importa", "roles con su interés", "personas afectadas"),
        interests,
        '["..."]',
    ),
    "role_names": Role(
        tuple("perfiles_citados puestos cargos usuarios destinatarios audience equipo_afectado".split()),
        ("solo los nombres de los puestos", "lista de cargos"),
        lambda b: list[Json](b.w.actors[: b.w.number(2, 4)]),
        '["..."]',
    ),
    "questions": Role(
        tuple(("preguntas dudas por_aclarar pendientes cuestiones_abiertas open_questions lagunas consultas").split()),
        ("lo que queda por aclarar", "de dos a cuatro preguntas al cliente"),
        _some(2, 4, _OPEN),
        '["..."]',
    ),
    "steps": Role(
        tuple("fases etapas plan calendario hitos hoja_de_ruta milestones entregas camino pasos".split()),
        ("fases numeradas", "el plan en orden", "de tres a cinco hitos"),
        steps,
        '["..."]',
    ),
    "level": Role(
        tuple(
            (
                "prioridad urgencia nivel criticidad importancia gravedad severidad "
                "categoria_de_urgencia semaforo level peso priority"
            ).split()
        ),
        ("un valor de la escala", "urgencia del encargo", "solo una palabra"),
        _levels,
    ),
    "code": Role(
        tuple("codigo referencia identificador id ref clave expediente numero_interno folio".split()),
        ("código", "referencia interna"),
        lambda b: b.w.code(),
    ),
    "owner": Role(
        tuple("responsable dueno a_cargo_de owner lider persona_de_contacto firmante".split()),
        ("quién responde", "persona o puesto responsable"),
        lambda b: b.w.pick(b.w.actors),
    ),
    "company": Role(
        tuple("empresa cliente organizacion compania entidad company".split()),
        ("nombre de la empresa", "quién lo encarga"),
        lambda b: b.w.company,
    ),
    "city": Role(
        tuple("ciudad lugar sede_principal city localidad plaza".split()),
        ("dónde", "ciudad"),
        lambda b: b.w.city,
    ),
    "systems": Role(
        tuple(("sistemas aplicaciones integraciones herramientas systems plataformas conexiones tecnologias").split()),
        ("sistemas que se citan", "nombres de los sistemas"),
        lambda b: list[Json](b.w.systems),
        '["..."]',
    ),
    "norms": Role(
        tuple("normas leyes marco_legal normativa regulations cumplimiento_legal reglamentos".split()),
        ("normas aplicables", "leyes y estándares"),
        lambda b: list[Json](b.w.norms),
        '["..."]',
    ),
    "count": Role(
        tuple("total cuantos numero_de_puntos cantidad recuento n_items count puntos_recibidos".split()),
        ("cuántos puntos se recibieron", "número entero: puntos de entrada"),
        lambda b: len(b.needs),
        "0",
    ),
    "hours": Role(
        tuple("horas esfuerzo dias coste_estimado estimacion effort puntos_de_esfuerzo semanas".split()),
        ("estimación, número", "número entero"),
        lambda b: b.w.number(2, 400),
        "0",
    ),
    "ratio": Role(
        tuple("confianza probabilidad avance cobertura_estimada certeza score ponderacion".split()),
        ("entre 0 y 1", "decimal"),
        lambda b: round(b.w.random(), 2),
        "0.0",
    ),
    "flag": Role(
        tuple(("aprobado requiere_legal es_urgente bloqueado datos_personales listo in_scope viable revisado").split()),
        ("true o false", "booleano"),
        lambda b: b.w.chance(0.5),
        "true",
    ),
    "kinds": Role(
        tuple("tipos clases naturaleza clasificacion categorias kinds familias".split()),
        ("la clase de cada punto, en orden", "tipo de cada petición"),
        lambda b: [n.kind for n in b.needs],
        '["..."]',
    ),
    "copies": Role(
        tuple("original textos_recibidos literal entrada peticiones_literales source tal_cual".split()),
        ("los puntos, copiados sin cambios", "copia literal de la lista"),
        lambda b: list[Json](b.asks),
        '["..."]',
    ),
    "figures": Role(
        tuple("cifras numeros_citados magnitudes datos_numericos figures cantidades_citadas".split()),
        ("cifras que aparecen en los puntos, en orden", "números con su unidad"),
        lambda b: figures(b.asks),
        '["..."]',
    ),
    "tags": Role(
        tuple("etiquetas palabras_clave temas tags descriptores".split()),
        ("palabras clave", "de tres a seis etiquetas"),
        lambda b: [bare(p) for p in (*b.w.objects[:2], *b.w.plurals[: b.w.number(1, 3)])],
        '["..."]',
    ),
    "last": Role(
        tuple("ultimo cierre punto_final ultimo_punto".split()),
        ("el último punto, literal",),
        lambda b: b.asks[-1],
    ),
    "first": Role(
        tuple("primero apertura punto_inicial primer_punto".split()),
        ("el primer punto, literal",),
        lambda b: b.asks[0],
    ),
    "nothing": Role(
        tuple("observaciones notas adjunto comentario_interno anexo".split()),
        ("null si no hay nada", "siempre null"),
        lambda b: None,
        "null",
    ),
}
_LISTS = [r for r, role in ROLES.items() if role.sample == '["..."]' and r not in ("items", "copies")]
_SMALL = [r for r in ROLES if r not in _LISTS and r not in ("items", "title", "summary", "copies")]
_BIG = [
    "tests",
    "stories",
    "exclusions",
    "needed",
    "dangers",
    "kpis",
    "people",
    "questions",
    "steps",
    "value",
    "summary",
]
_ENGLISH = frozenset({"title", "description", "priority", "risks", "dependencies"})

Spec = list[tuple[str, str]]  # (key, role), in the order of the answer


def _camel(key: str) -> str:
    head, *rest = key.split("_")
    return head + "".join(map(str.capitalize, rest))


_KEY_STYLES: tuple[Callable[[str], str], ...] = (
    str,
    str,
    str,
    str,
    _camel,
    lambda k: k.replace("_", "-"),
    lambda k: cap(k.replace("_", " ")),
    str.upper,
)


def make_spec(w: World, low: int, high: int) -> Spec:
    """A shape for an answer: `items` and other roles under random keys, in random order."""
    roles = ["items"]
    if w.chance(0.85):
        roles.append("title")
    if w.chance(0.85):
        roles.append("summary")
    count = w.number(low, high)
    pool = w.many(_BIG, len(_BIG)) if w.chance(0.7) else w.many(_LISTS + _SMALL, len(_LISTS) + len(_SMALL))
    pool += w.many(_SMALL, 4)
    for role in pool:
        if len(roles) >= count:
            break
        if role not in roles:
            roles.append(role)
    if w.chance(0.08):
        roles.append("copies")
    if w.chance(0.25):
        w.rng.shuffle(roles)
    else:
        rank = {
            "code": 0,
            "title": 1,
            "company": 1,
            "summary": 2,
            "value": 3,
            "stories": 4,
            "people": 4,
            "items": 5,
            "tests": 6,
            "level": 9,
        }
        roles.sort(key=lambda r: rank.get(r, 7))
    style = w.pick(_KEY_STYLES)
    spec: Spec = []
    taken: set[str] = set()
    for role in roles:
        key = w.pick(ROLES[role].keys)
        if w.chance(0.05):
            key = w.pseudo()
        if key in taken or (key in _ENGLISH and taken & _ENGLISH):
            key = f"{key}_{role}" if role not in _ENGLISH else f"{role}_{w.number(2, 9)}"
        taken.add(key)
        spec.append((style(key), role))
    return spec


def write_spec(b: Brief, spec: Spec) -> dict[str, Json]:
    """The answer of this shape about this brief."""
    return {key: ROLES[role].write(b) for key, role in spec}


_KEY_MARKS = ("{}", "`{}`", '"{}"')


def describe(w: World, spec: Spec) -> str:
    """The shape in words, in one of many ways."""
    chance = w.random()
    keys = [k for k, _ in spec]
    if chance < 0.25:
        body = "\n".join(f"- {w.pick(_KEY_MARKS).format(k)}: {w.pick(ROLES[r].texts)}" for k, r in spec)
        heads = (
            "Claves, en este orden:",
            "El objeto lleva estas claves:",
            "Campos del JSON:",
            "Devuelve JSON con:",
        )
        return f"{w.pick(heads)}\n{body}"
    if chance < 0.45:
        names = join([f'"{k}"' for k in keys])
        heads = (
            "Las claves son",
            "Usa las claves",
            "El JSON tiene, por este orden,",
            "Devuelve JSON con los campos",
        )
        return f"{w.pick(heads)} {names}."
    if chance < 0.65:
        body = ",\n".join(
            f"  {_quote(k)}: {ROLES[r].sample if ROLES[r].sample != '...' else _quote('...')}" for k, r in spec
        )
        heads = ("Forma de la respuesta:", "Esquema:", "Rellena esta plantilla:", "Estructura exacta:")
        return f"{w.pick(heads)}\n{{\n{body}\n}}"
    if chance < 0.8:
        kinds = {
            '["..."]': "string[]",
            "0": "number",
            "0.0": "number",
            "true": "boolean",
            "null": "null",
            "...": "string",
        }
        body = "\n".join(f"  {k if k.isidentifier() else _quote(k)}: {kinds[ROLES[r].sample]};" for k, r in spec)
        head = w.pick(("La salida cumple este tipo:", "Tipo de la respuesta:", "Responde con un objeto Salida:"))
        return f"{head}\ninterface Salida {{\n{body}\n}}"
    body = "; ".join(f"{k}: {w.pick(ROLES[r].texts)}" for k, r in spec)
    return f"Formato JSON. Campos: {body}."


_INPUT_KEYS = (
    """
        contexto situacion antecedentes escenario proyecto entorno descripcion caso background brief marco
        empresa_y_situacion presentacion texto resumen_del_cliente introduccion context
        """.split(),
    """
        requisitos peticiones necesidades puntos solicitudes demandas pedidos lista items exigencias
        lo_que_pide funciones needs requirements requests deseos encargos lineas funcionalidades
        requerimientos
        """.split(),
)


def present(b: Brief) -> str:
    """The brief as the user's material: JSON, bullets, prose or mixed."""
    w = b.w
    chance = w.random()
    if chance < 0.5:
        first, second = w.pick(_INPUT_KEYS[0]), w.pick(_INPUT_KEYS[1])
        if first == "context" and second == "requerimientos":
            second = "peticiones"
        style = w.pick(_KEY_STYLES)
        data: dict[str, Json] = {style(first): b.context, style(second): list[Json](b.asks)}
        if w.chance(0.15):
            data = {style("cliente"): w.company, **data}
        if w.chance(0.1):
            data[style("plazo")] = w.date
        return dumps(data, 2 if w.chance(0.6) else None)
    head = w.pick(_HEADS)
    if chance < 0.85:
        glue = w.pick(("\n\n", "\n", "\n\n"))
        label = w.pick(("Contexto: ", "Situación: ", "", "", "## Contexto\n", "Antecedentes: "))
        head = f"## {head.rstrip(':')}" if label.startswith("##") else head
        return f"{label}{b.context}{glue}{head}\n{listed(w, b.asks)}"
    body = "; ".join(n.text for n in b.needs)
    return f"{b.context} {head} {body}."


_HEADS = pool(
    """
Requisitos:|Peticiones:|Lo que se pide:|Puntos:|Necesidades:|Se pide lo siguiente:|Lista de deseos:|Esto es
lo que queremos:|Pedidos del cliente:|Funciones:|A cubrir:|Lo acordado:|Lista:|Resumen de peticiones:|Tiene
que:|Nos hace falta:
"""
)
_ORDERS = pool(
    """
Convierte el encargo en un objeto JSON.|Lee el encargo y devuelve JSON.|Pasa lo que sigue a JSON sin dejarte
ningún punto.|A partir del contexto y de la lista, escribe la ficha en JSON.|Prepara la ficha del
encargo.|Analiza el material y responde con un objeto JSON.|Ordena lo que pide el cliente en el formato
indicado.|Haz la ficha de trabajo en JSON: cada punto de la lista ha de quedar cubierto.|Transforma la
petición en el JSON que se describe.|Necesito el documento en JSON.|Estructura este encargo.|Escribe el
documento que corresponde a este material.|Con el contexto y los puntos dados, rellena el formato.|Redacta
la hoja del proyecto en JSON.|Quiero un JSON con lo que sigue.
"""
)


def items_to_json(w: World) -> Document:
    """Context and list to an object of a described shape, one array of which re-expresses each item."""
    b = Brief(w, 3, 9)
    spec = make_spec(w, 4, 12)
    answer = dumps(write_spec(b, spec))
    order = w.pick(_ORDERS)
    shape = describe(w, spec)
    if w.chance(0.65):
        document = talk(w, order, present(b), answer, True, shape)
    else:
        document = talk(w, f"{order}\n{shape}", present(b), answer, True)
    if w.chance(0.1):
        lists = [(k, r) for k, r in spec if ROLES[r].sample == '["..."]']
        data = json.loads(answer)
        key = w.pick(lists)[0]
        question = w.pick(
            (
                "Dame solo «{}», en lista.",
                "¿Qué pusiste en «{}»? Una línea por elemento.",
                "Repite «{}» con guiones.",
            )
        ).format(key)
        document = then(document, question, "\n".join(f"- {x}" for x in data[key]))
    return document


def _named_formats() -> list[tuple[str, Spec]]:
    """Shapes that a prompt only names: the model has to know them."""
    rng = random.Random(20)
    first = "ficha hoja cédula tarjeta plantilla minuta carpeta matriz lámina memoria nota cartilla".split()
    second = [
        "de alcance",
        "de control",
        "de arranque",
        "de encargo",
        "de seguimiento",
        "de validación",
        "maestra",
        "operativa",
        "breve",
        "de cierre",
    ]
    formats = []
    for name in rng.sample([f"{a} {b}" for a in first for b in second], 48):
        roles = [
            "title",
            "summary",
            "items",
            *rng.sample([r for r in _BIG if r != "summary"], rng.randint(3, 7)),
        ]
        roles += rng.sample(["level", "code", "count", "owner", "flag", "company"], rng.randint(0, 2))
        rest = roles[1:]
        if rng.random() < 0.5:
            rng.shuffle(rest)
        keys: list[tuple[str, str]] = []
        for role in [roles[0], *rest]:
            free = [k for k in ROLES[role].keys if k not in _ENGLISH and k not in dict(keys)]
            keys.append((rng.choice(free), role))
        formats.append((name, keys))
    return formats


_NAMED = _named_formats()
_NAMED_ORDERS = pool(
    """
Eres {who}. Tu trabajo: leer lo que pide el cliente y escribir la {name} en JSON.|Escribe siempre la {name},
en JSON.|Recibes un contexto con una lista de peticiones y respondes con la {name} en formato JSON, completa
y precisa.|Devuelve la {name} del encargo.|Formato de salida: {name}.|Eres {who} y solo produces la {name}
(JSON).|Analiza el contexto y los puntos y redacta la {name} en JSON, clara y detallada.|Genera la {name}.
Cada petición debe quedar cubierta.
"""
)


def named_format(w: World) -> Document:
    """Context and list to one of 48 fixed shapes, which the prompt only names."""
    name, spec = w.pick(_NAMED)
    b = Brief(w, 4, 8)
    order = w.pick(_NAMED_ORDERS).format(name=name, who=w.pick(_WHO).format_map(w.slots))
    answer = dumps(write_spec(b, spec))
    messages = [{"role": "user", "content": present(b)}, {"role": "assistant", "content": answer}]
    if w.chance(0.85):
        return [{"role": "system", "content": order}, *messages]
    messages[0]["content"] = f"{order}\n\n{messages[0]['content']}"
    return messages


def by_example(w: World, other: World) -> Document:
    """A worked example, in the prompt or as an earlier exchange, then a new brief in the same shape."""
    spec = make_spec(w, 3, 7)
    example, b = Brief(other, 2, 4), Brief(w, 3, 6)
    style = w.chance(0.5)

    def shown(brief: Brief) -> str:
        return (
            f"{brief.context}\n{listed(w, brief.asks, '- {}')}"
            if style
            else dumps({"texto": brief.context, "lista": list[Json](brief.asks)})
        )

    first, answer = dumps(write_spec(example, spec)), dumps(write_spec(b, spec))
    if w.chance(0.5):
        system = f"{persona(w, True)}\n\nEjemplo de entrada:\n{shown(example)}\n\nEjemplo de salida:\n{first}"
        return [
            {"role": "system", "content": system},
            {"role": "user", "content": shown(b)},
            {"role": "assistant", "content": answer},
        ]
    order = w.pick(_ORDERS)
    document = talk(w, f"{order} {describe(w, spec)}", shown(example), first, True)
    return then(document, w.pick(("Ahora este:\n", "Otro:\n", "Igual con este:\n", "")) + shown(b), answer)


_OBJECT_FIELDS: dict[str, tuple[tuple[str, ...], Callable[[Brief, Need, int], Json]]] = {
    "n": (("n", "numero", "orden", "id", "#"), lambda b, n, i: i + 1),
    "ref": (
        ("ref", "codigo", "clave", "identificador"),
        lambda b, n, i: f"{b.w.slots['ref_prefix']}-{i + 1:02d}",
    ),
    "original": (
        ("original", "peticion", "texto", "punto", "literal", "requisito"),
        lambda b, n, i: b.asks[i],
    ),
    "rewritten": (
        ("condicion", "verificable", "criterio", "reescrito", "se_cumple_si", "comprobacion", "detalle"),
        lambda b, n, i: n.say(b.w.pick(("statement", "statement", "when"))),
    ),
    "test": (("prueba", "como_se_prueba", "ensayo", "paso", "test"), lambda b, n, i: n.say("test")),
    "story": (("historia", "relato", "en_voz_del_usuario"), lambda b, n, i: n.say("story")),
    "question": (("pregunta", "control", "duda"), lambda b, n, i: n.say("question")),
    "reason": (("motivo", "razon", "porque", "justificacion", "why"), lambda b, n, i: n.say("reason")),
    "kind": (("tipo", "clase", "categoria", "kind", "naturaleza"), lambda b, n, i: n.kind),
    "level": (
        ("prioridad", "urgencia", "nivel", "peso", "importancia"),
        lambda b, n, i: b.w.pick(("alta", "media", "baja")),
    ),
    "hours": (("horas", "dias", "puntos", "esfuerzo", "estimacion"), lambda b, n, i: b.w.number(1, 80)),
    "owner": (("responsable", "rol", "quien", "a_cargo_de", "owner"), lambda b, n, i: b.w.pick(b.w.actors)),
    "date": (("fecha", "plazo", "para_cuando", "limite"), lambda b, n, i: b.w.a_date()),
    "flag": (("medible", "urgente", "aprobado", "viable", "hecho"), lambda b, n, i: b.w.chance(0.5)),
    "short": (("breve", "resumen", "corto", "titular"), lambda b, n, i: n.say("short").rstrip(".")),
    "system": (("sistema", "aplicacion", "afecta_a"), lambda b, n, i: b.w.pick(b.w.systems)),
    "list": (
        ("pasos", "controles", "evidencias", "comprobaciones"),
        lambda b, n, i: [n.say(f) for f in b.w.many(("test", "question", "when", "statement"), b.w.number(2, 3))],
    ),
}
_OBJECT_MEANINGS = {
    "n": "número de orden",
    "ref": "referencia correlativa",
    "original": "el punto copiado",
    "rewritten": "el punto reescrito con una medida",
    "test": "cómo se prueba",
    "story": "el punto contado por un rol",
    "question": "una pregunta de control",
    "reason": "por qué se pide",
    "kind": "clase de requisito",
    "level": "urgencia",
    "hours": "estimación",
    "owner": "quién responde",
    "date": "fecha",
    "flag": "true o false",
    "short": "versión corta",
    "system": "sistema afectado",
    "list": "lista de dos o tres frases",
}


def items_to_objects(w: World) -> Document:
    """Each item to an object: tests, estimates, classification, priorities with their reason."""
    b = Brief(w, 3, 8)
    w.slots["ref_prefix"] = w.pick(("R", "P", "REQ", "PT", w.code().split("-")[0][:3] or "X"))
    chosen = ["rewritten"] if w.chance(0.7) else ["test"]
    chosen += [f for f in w.many(tuple(_OBJECT_FIELDS), w.number(1, 5)) if f not in chosen]
    order_of = list(_OBJECT_FIELDS)
    chosen.sort(key=order_of.index)
    names: dict[str, str] = {}
    for f in chosen:
        name = w.pick(_OBJECT_FIELDS[f][0])
        names[f] = name if name not in names.values() else f"{name}_{f}"
    rows: list[Json] = [{names[f]: _OBJECT_FIELDS[f][1](b, n, i) for f in chosen} for i, n in enumerate(b.needs)]
    wrap = w.pick(("puntos", "filas", "resultado", "items", "analisis", "matriz", "lista", "entradas"))
    data: Json = rows if w.chance(0.3) else {wrap: rows}
    if isinstance(data, dict) and w.chance(0.4):
        data = {w.pick(ROLES["summary"].keys[:6]): summary(b, 1), **data, "total": len(rows)}
    meanings = "; ".join(f"{names[f]} ({_OBJECT_MEANINGS[f]})" if w.chance(0.6) else names[f] for f in chosen)
    if isinstance(data, dict):
        where = join([f'"{k}"' for k in data]) + f"; «{wrap}» es una lista de objetos con " + meanings
        shape = f"Responde con un objeto JSON de claves {where}."
    else:
        shape = f"Responde con una lista JSON de objetos con {meanings}."
    order = w.pick(
        (
            "Analiza cada punto.",
            "Clasifica y detalla la lista.",
            "Haz un objeto por petición, en el mismo orden.",
            "Convierte cada requisito en una fila.",
            "Estudia las peticiones una a una.",
        )
    )
    return talk(w, f"{order} {shape}", present(b), dumps(data), True)


_SECTION_NAMES = {
    "items": (
        "Condiciones",
        "Puntos comprobables",
        "Qué se comprobará",
        "Cobertura",
        "Criterios",
        "Desarrollo punto por punto",
    ),
    "tests": ("Pruebas", "Ensayos", "Plan de pruebas"),
    "summary": ("Resumen", "En breve", "De qué se trata", "Objetivo"),
    "value": ("Por qué", "Beneficio", "Valor"),
    "stories": ("Historias", "Qué quiere cada rol", "Voces"),
    "exclusions": ("Fuera de alcance", "No incluye", "Límites"),
    "needed": ("Dependencias", "Hace falta", "Condiciones previas"),
    "dangers": ("Riesgos", "Qué puede fallar"),
    "kpis": ("Indicadores", "Cómo se mide"),
    "people": ("Interesados", "Quién participa"),
    "questions": ("Preguntas abiertas", "Por aclarar"),
    "steps": ("Plan", "Fases", "Hitos"),
    "systems": ("Sistemas",),
    "norms": ("Normas",),
    "level": ("Prioridad", "Urgencia"),
    "owner": ("Responsable",),
}


def items_to_markdown(w: World) -> Document:
    """Context and list to a Markdown document, one section of which re-expresses each item."""
    b = Brief(w, 3, 9)
    roles = w.many(tuple(r for r in _SECTION_NAMES if r != "items"), w.number(2, 6))
    roles.insert(w.number(0, len(roles)), "items")
    names = {r: w.pick(_SECTION_NAMES[r]) for r in roles}
    style = w.pick(("- {}", "{n}. {}", "* {}", "- [ ] {}"))
    parts = [f"# {title(b)}"]
    for role in roles:
        value = ROLES[role].write(b)
        body = listed(w, [sentence(str(v)) for v in value], style) if isinstance(value, list) else sentence(str(value))
        parts.append(f"## {names[role]}\n\n{body}")
    order = w.pick(
        (
            "Escribe un documento en Markdown con las secciones {}.",
            "Redacta en Markdown: título y apartados {}.",
            "Documento Markdown con {}; cada punto de la lista va en su orden.",
            "Pásalo a Markdown. Apartados: {}.",
        )
    ).format(join([f"«{names[r]}»" for r in roles]))
    return talk(w, order, present(b), "\n\n".join(parts))


# ---------------------------------------------------------------- other kinds


def brief_to_summary(w: World) -> Document:
    """A brief to prose, and sometimes shorter still."""
    b = Brief(w, 3, 7)
    k = w.number(2, 4)
    order = w.pick(
        (
            "Resume el encargo en {k} frases.",
            "Escribe un resumen de {k} frases.",
            "Haz una síntesis de {k} frases para la dirección.",
            "Cuenta en {k} frases qué se pide.",
            "Resumen ejecutivo: {k} frases.",
            "Explica el encargo en {k} frases a quien no estuvo.",
        )
    ).format(k=k)
    document = talk(w, order, present(b), " ".join(about(b, t) for t in w.many(_SUMMARIES, k)))
    if w.chance(0.3):
        document = then(
            document,
            w.pick(("Ahora en una sola frase.", "Más corto, una frase.", "Déjalo en una frase.")),
            summary(b, 1),
        )
    if w.chance(0.3):
        document = then(document, w.pick(("¿Y un título?", "Ponle título.", "Dame un titular.")), title(b))
    return document


def brief_to_minutes(w: World) -> Document:
    """A brief to meeting minutes in Markdown."""
    b = Brief(w, 3, 7)
    people = [w.person() for _ in range(w.number(2, 4))]
    agreed = [n.say(w.pick(("promise", "statement"))) for n in b.needs]
    owned = [f"{a.rstrip('.')} ({w.pick(people)})." if w.chance(0.5) else a for a in agreed]
    date = w.a_date()
    parts = [
        w.pick(("# Acta de la reunión del {}", "# Reunión del {}", "**Acta** · {}")).format(date),
        f"{w.pick(('Asisten', 'Presentes', 'Participan'))}: {join(people)}.",
        f"## {w.pick(('Situación', 'Antecedentes', 'Planteamiento'))}",
        " ".join(b.sentences[: w.number(2, 4)]),
        f"## {w.pick(('Acuerdos', 'Decisiones', 'Lo acordado'))}\n\n{listed(w, owned, '{n}. {}')}",
        f"## {w.pick(('Dudas', 'Pendiente', 'Por aclarar'))}\n\n{listed(w, lines(w, _OPEN, 2), '- {}')}",
    ]
    order = w.pick(
        (
            "Redacta el acta de la reunión del {d}, con {p}.",
            "Haz el acta. Fecha: {d}. Asistentes: {p}.",
            "Escribe las notas formales de la reunión del {d} ({p}).",
        )
    )
    return talk(w, order.format(d=date, p=join(people)), present(b), "\n\n".join(parts))


_SAID = pool(
    """
{p} se encarga de {i} antes del {d}|{i}: lo hace {p}, para el {d}|{p}: {i}, plazo {d}|quedamos en que {p} va
a {i}; fecha, {d}|para el {d}, {p} debe {i}|lo de {i} lo lleva {p} y vence el {d}|acción para {p}: {i}
({d})|{d}: {i}, responsable {p}
"""
)


def notes_to_tasks(w: World) -> Document:
    """Loose meeting notes to JSON tasks with owner and date."""
    people = [w.person() for _ in range(3)]
    slots = w.slots
    said, rows = [], []
    names = [
        w.pick(p)
        for p in (
            ("tarea", "accion", "que", "task"),
            ("responsable", "persona", "quien", "owner"),
            ("fecha", "plazo", "vence", "due"),
        )
    ]
    extra = w.pick((None, "estado", "hecha", "n"))
    for i in range(w.number(4, 10)):
        need = Need(w, w.pick(w.vocabulary.actions))
        who, date, task = w.pick(people), w.a_date(), need.slots["inf"]
        said.append(sentence(w.pick(_SAID).format(p=who, i=task, d=date)))
        row: dict[str, Json] = {names[0]: cap(task), names[1]: who, names[2]: date}
        extras: dict[str, Json] = {"estado": "pendiente", "hecha": False, "n": i + 1}
        if extra:
            row[extra] = extras[extra]
        rows.append(row)
    noise = lines(w, w.many((*w.vocabulary.facts, *_TROUBLE), 3), 3)
    spoken = list(said)
    for sentence_ in noise:
        spoken.insert(w.number(0, len(spoken)), sentence_)
    material = " ".join(spoken) if w.chance(0.5) else listed(w, spoken, "- {}")
    wrap = w.pick(("tareas", "acciones", "pendientes", "compromisos"))
    data: Json = {wrap: list[Json](rows)} if w.chance(0.7) else list[Json](rows)
    keys = join([f'"{k}"' for k in [*names, *([extra] if extra else [])]])
    where = (
        f"un objeto con la clave «{wrap}», lista de objetos con"
        if isinstance(data, dict)
        else "una lista de objetos con"
    )
    order = w.pick(
        (
            "Saca las tareas de las notas: {} {}.",
            "Extrae los compromisos como JSON: {} {}.",
            "De las notas, devuelve {} {}. Lo que no sea tarea se ignora.",
        )
    )
    material = f"{w.pick(('Notas', 'Apuntes', 'Reunión', 'Lo hablado'))} ({slots['ciudad']}):\n{material}"
    document = talk(w, order.format(where, keys), material, dumps(data), True)
    if w.chance(0.3):
        who = w.pick(people)
        mine = [str(r[names[0]]) for r in rows if r[names[1]] == who]
        answer = (
            f"{who} tiene {len(mine)}: " + "; ".join(m[:1].lower() + m[1:] for m in mine) + "."
            if mine
            else f"{who} no tiene ninguna."
        )
        document = then(
            document, w.pick(("¿Qué le toca a {}?", "¿Cuántas tareas tiene {} y cuáles?")).format(who), answer
        )
    return document


def numbered_with_reasons(w: World) -> Document:
    """A list to numbered Markdown: each item restated, with its reason below."""
    b = Brief(w, 4, 8)
    reason, check = (
        w.pick(("Motivo", "Por qué", "Razón", "Justificación")),
        w.pick(("Se comprueba", "Prueba", "Evidencia", "Medida")),
    )
    with_check = w.chance(0.6)
    parts = []
    for i, n in enumerate(b.needs):
        text = f"{i + 1}. **{n.say('short').rstrip('.')}**\n   - {reason}: {n.say('reason')}"
        parts.append(text + (f"\n   - {check}: {n.say('statement')}" if with_check else ""))
    what = f"«{reason}» y «{check}»" if with_check else f"«{reason}»"
    order = w.pick(
        (
            "Numera los puntos en Markdown; debajo de cada uno, {}.",
            "Lista numerada con los puntos en negrita y, en cada uno, {}.",
            "Reescribe la lista, numerada, con {} por punto.",
        )
    )
    return talk(w, order.format(what), present(b), "\n".join(parts))


def release_notes(w: World) -> Document:
    """A brief to release notes or a change log, in Markdown or JSON."""
    b = Brief(w, 3, 8)
    version = f"{w.number(0, 9)}.{w.number(0, 30)}.{w.number(0, 20)}"
    news = [n.say("release") for n in b.needs]
    if w.chance(0.5):
        keys = [
            w.pick(p)
            for p in (
                ("version", "numero", "release"),
                ("fecha", "publicada", "date"),
                ("cambios", "novedades", "changes", "mejoras"),
            )
        ]
        data: dict[str, Json] = {keys[0]: version, keys[1]: w.date, keys[2]: list[Json](news)}
        if w.chance(0.5):
            data["avisos"] = lines(w, _NEEDED, 2)  # type: ignore[assignment]
        order = (
            f"Escribe la nota de la versión {version}, publicada el {w.date}, como JSON con "
            f"{join([f'«{k}»' for k in data])}."
        )
        return talk(w, order, present(b), dumps(data), True)
    head = w.pick(
        ("# Novedades de la versión {v} ({d})", "## [{v}] · {d}", "# Versión {v}\n\nPublicada el {d}.")
    ).format(v=version, d=w.date)
    body = listed(w, news, w.pick(("- {}", "* {}", "{n}. {}")))
    order = w.pick(
        (
            "Redacta las notas de la versión {v} ({d}).",
            "Registro de cambios de la versión {v}, del {d}.",
            "Anuncia la versión {v} del {d}: una línea por punto.",
        )
    )
    return talk(w, order.format(v=version, d=w.date), present(b), f"{head}\n\n{body}")


def user_stories(w: World) -> Document:
    """Requirements as user stories, in prose or Markdown, with acceptance notes."""
    b = Brief(w, 2, 6)
    detailed = w.chance(0.6)
    parts = []
    for i, n in enumerate(b.needs):
        head = f"{w.pick(('### Historia', '**Historia'))} {i + 1}"
        head += "**" if head.startswith("**") else ""
        notes = [n.say(w.pick(("when", "statement", "test"))) for _ in range(w.number(2, 3))]
        parts.append(f"{head}\n\n{n.say('story')}\n\n{listed(w, notes, '- {}')}" if detailed else n.say("story"))
    order = w.pick(
        (
            "Escribe una historia de usuario por punto",
            "Convierte cada petición en historia de usuario",
            "Historias de usuario, en el mismo orden",
        )
    )
    order += ", cada una con dos o tres notas de aceptación." if detailed else ", una por línea."
    return talk(w, order, present(b), ("\n\n" if detailed else "\n").join(parts))


_MEANINGS = pool(
    """
término de uso diario en {company}; lo gestiona {actor}|dato que {actor} registra en {sys} con su
{campo}|elemento que se identifica por {campo} y {campo2}|lo que {actor} revisa cada {dia} con
{actor2}|registro que se guarda {n_2_10} años por {norm}|concepto que aparece en {plural} y en {sys}|unidad
de trabajo de {actor}, con código {codigo}|documento que se envía por {canal} y se firma con {prueba}
"""
)


def glossary(w: World) -> Document:
    """Given definitions to an alphabetical glossary, in Markdown or JSON."""
    terms = {bare(o): sentence(w.fill(w.pick(_MEANINGS))) for o in w.many((*w.objects, *w.plurals), w.number(4, 7))}
    material = listed(w, [f"{t}: {m}" for t, m in terms.items()])
    ordered = dict(sorted(terms.items(), key=lambda kv: kv[0].lower()))
    if w.chance(0.5):
        order = w.pick(
            (
                "Ordena el glosario por orden alfabético y devuélvelo como objeto JSON, término a definición.",
                "Glosario en JSON, de la A a la Z: la clave es el término.",
            )
        )
        return talk(w, order, material, dumps(dict[str, Json](ordered)), True)
    order = w.pick(
        (
            "Escribe el glosario en orden alfabético, en Markdown, con el término en negrita.",
            "Glosario alfabético, un término por línea y en negrita.",
        )
    )
    return talk(w, order, material, "\n".join(f"- **{k}**: {v}" for k, v in ordered.items()))


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        [
            "| " + " | ".join(header) + " |",
            "|" + "---|" * len(header),
            *("| " + " | ".join(r) + " |" for r in rows),
        ]
    )


def stakeholders(w: World) -> Document:
    """Who is concerned and why: table, list or JSON."""
    b = Brief(w, 3, 6)
    rows = [
        [
            cap(a),
            cap(w.fill("{benefit}")),
            w.pick(("alta", "media", "baja")),
            w.pick(("informar", "consultar", "decide", "hace")),
        ]
        for a in w.actors
    ]
    order = w.pick(
        (
            "Lista de interesados con su interés, su influencia y su papel",
            "¿A quién afecta? Rol, interés, influencia y papel",
            "Mapa de interesados: rol, interés, influencia, papel",
        )
    )
    if w.chance(0.5):
        keys = [
            "rol",
            w.pick(("interes", "le_importa")),
            w.pick(("influencia", "poder")),
            w.pick(("papel", "accion")),
        ]
        data: Json = [dict(zip(keys, r, strict=True)) for r in rows]
        return talk(
            w,
            f"{order}, como lista JSON con las claves {join([f'«{k}»' for k in keys])}. Roles: {join(w.actors)}.",
            present(b),
            dumps(data),
            True,
        )
    return talk(
        w,
        f"{order}, en tabla Markdown. Roles: {join(w.actors)}.",
        present(b),
        _table(("Rol", "Interés", "Influencia", "Papel"), rows),
    )


def risk_register(w: World) -> Document:
    """Risks of a brief with probability, impact and answer, as table or JSON."""
    b = Brief(w, 3, 6)
    found = [cap(w.fill(r)) for r in w.many(w.vocabulary.risks, w.number(3, 6))]
    answers = [sentence(w.fill(w.pick(_ANSWERS))) for _ in found]
    numbers = [(w.number(1, 5), w.number(1, 5)) for _ in found]
    if w.chance(0.5):
        keys = [
            w.pick(p)
            for p in (
                ("riesgo", "amenaza", "que_pasa"),
                ("probabilidad", "p"),
                ("impacto", "gravedad"),
                ("respuesta", "mitigacion", "plan"),
                ("producto", "total", "puntos"),
            )
        ]
        data: Json = {
            "registro": [
                dict(zip(keys, (f, p, i, a, p * i), strict=True))
                for f, (p, i), a in zip(found, numbers, answers, strict=True)
            ]
        }
        order = (
            "Registro de riesgos en JSON: «registro», lista con "
            f"{join([f'«{k}»' for k in keys])}; el último es el producto de los dos números."
        )
        return talk(
            w,
            order,
            f"{b.context}\n\nRiesgos, con probabilidad e impacto (1 a 5):\n"
            + listed(w, [f"{f} ({p}, {i})" for f, (p, i) in zip(found, numbers, strict=True)]),
            dumps(data),
            True,
        )
    rows = [[f, str(p), str(i), str(p * i), a] for f, (p, i), a in zip(found, numbers, answers, strict=True)]
    material = f"{b.context}\n\n" + listed(
        w, [f"{f}: probabilidad {p}, impacto {i}" for f, (p, i) in zip(found, numbers, strict=True)]
    )
    return talk(
        w,
        "Haz la tabla de riesgos en Markdown, con el producto y una respuesta para cada uno.",
        material,
        _table(("Riesgo", "Probabilidad", "Impacto", "Producto", "Respuesta"), rows),
    )


_ANSWERS = pool(
    """
piloto de {n_2_8} semanas en {ciudad} con {actor}|plan alternativo sobre {sys}, probado el {fecha}|copia
diaria y ensayo {cada}|formar a {actor} antes del {fecha}|reservar {n_5_90}.000 {moneda}|acordar con
{actor2} un camino manual|revisar {norm} con el área legal|vigilar {plural} cada {dia}|avisar por {canal} a
{actor}
"""
)


def faq(w: World) -> Document:
    """Frequent questions with answers drawn from the brief."""
    b = Brief(w, 3, 7)
    pairs = [
        (
            cap(
                w.pick(("¿se podrá {}?", "¿es posible {}?", "¿cómo será {}?", "¿va a ser posible {}?")).format(
                    core_of(n)
                )
            ),
            f"{w.pick(('Sí', 'Sí', 'Así es', 'Claro'))}. {n.say(w.pick(('statement', 'promise', 'when')))}",
        )
        for n in b.needs
    ]
    if w.chance(0.4):
        keys = [w.pick(("pregunta", "p", "question")), w.pick(("respuesta", "r", "answer"))]
        data: Json = [dict(zip(keys, pair, strict=True)) for pair in pairs]
        return talk(
            w,
            f"Preguntas frecuentes en JSON: lista de objetos con «{keys[0]}» y «{keys[1]}», una por punto.",
            present(b),
            dumps(data),
            True,
        )
    text = "\n\n".join(f"**{q}**\n{a}" for q, a in pairs)
    return talk(
        w,
        w.pick(
            (
                "Escribe las preguntas frecuentes, una por punto.",
                "FAQ para los usuarios, en el orden de la lista.",
                "Redacta preguntas y respuestas sobre cada punto.",
            )
        ),
        present(b),
        text,
    )


def mail_answer(w: World) -> Document:
    """A reply by mail that answers each point."""
    b = Brief(w, 3, 6)
    sender, me = w.person(), w.person()
    subject = title(b)
    goodbye = w.pick(("Un saludo", "Saludos", "Gracias", "Quedo atento"))
    points = f"{w.pick(_HEADS)}\n{listed(w, b.asks)}"
    mail = (
        f"De: {sender}\nAsunto: {subject}\n\nHola, {me.split()[0]}:\n\n{b.context}\n\n{points}\n\n{goodbye},\n{sender}"
    )
    replies = [n.say(w.pick(("promise", "statement"))) for n in b.needs]
    body = listed(w, replies, w.pick(("{n}. {}", "- {}", "{}")))
    opening = w.pick(
        (
            "Gracias por tu mensaje. Respondo punto por punto:",
            "Te contesto en el mismo orden:",
            "Vamos por partes:",
            "Recibido. Esto es lo que haremos:",
        )
    )
    goodbye = w.pick(("Un saludo", "Saludos", "Hasta pronto"))
    answer = f"Asunto: RE: {subject}\n\nHola, {sender.split()[0]}:\n\n{opening}\n\n{body}\n\n{goodbye},\n{me}"
    return talk(
        w,
        w.pick(
            (
                "Contesta a este correo, punto por punto, como {}.",
                "Redacta la respuesta de {} a cada punto.",
                "Responde el correo. Firma: {}.",
            )
        ).format(me),
        mail,
        answer,
    )


def ticket_triage(w: World) -> Document:
    """Support tickets to JSON."""
    rows, tickets = [], []
    keys = [
        w.pick(p)
        for p in (
            ("ticket", "id", "codigo"),
            ("cliente", "persona", "reporta"),
            ("sistema", "afecta_a", "aplicacion"),
            ("gravedad", "nivel", "urgencia"),
            ("siguiente_paso", "accion", "que_hacer"),
        )
    ]
    for _ in range(w.number(1, 5)):
        code, who, system = w.code(), w.person(), w.pick(w.systems)
        trouble, level = w.fill(w.pick(w.vocabulary.problems)), w.pick(("alta", "media", "baja"))
        mark = {
            "alta": ("no puedo trabajar", "es urgentísimo", "estamos parados"),
            "media": ("molesta bastante", "cuando podáis, esta semana"),
            "baja": ("no corre prisa", "es un detalle"),
        }[level]
        tickets.append(f"{code} · {who} · {system}: {trouble}; {w.pick(mark)}.")
        rows.append(dict(zip(keys, (code, who, system, level, sentence(w.fill(w.pick(_ANSWERS)))), strict=True)))
    w.rng.shuffle(keys)
    data: list[Json] = [{k: r[k] for k in keys} for r in rows]
    order = (
        w.pick(
            (
                "Clasifica los avisos.",
                "Haz el triaje de los tickets.",
                "Ordena las incidencias.",
                "Convierte los avisos en JSON.",
            )
        )
        + f" Devuelve {'un objeto' if len(data) == 1 else 'una lista'} JSON con "
        f"{join([f'«{k}»' for k in keys])}; la gravedad es alta, media o baja."
    )
    return talk(w, order, "\n".join(tickets), dumps(data[0] if len(data) == 1 else data), True)


def extraction(w: World) -> Document:
    """Names, systems, norms, dates and codes that a text mentions, to JSON."""
    company, norm, system, who, code, date = (
        w.company,
        w.norms[0],
        w.systems[0],
        w.person(),
        w.code(),
        w.a_date(),
    )
    amount, people = f"{w.number(10, 900)}.000 {w.currency}", w.number(12, 4000)
    facts: list[tuple[str, Json, str]] = [
        ("empresa", company, f"{w.pick(('Escribe', 'Llama', 'Informa', 'Nos contacta'))} {company}."),
        ("norma", norm, f"Rige {norm}."),
        ("sistema", system, f"Trabajan con {system}."),
        ("contacto", who, f"La persona de contacto es {who}."),
        ("codigo", code, f"El expediente lleva el código {code}."),
        ("fecha", date, f"El plazo termina el {date}."),
        ("importe", amount, f"Hay {amount} de presupuesto."),
        ("personas", people, f"Afecta a {people} personas."),
        ("ciudad", w.city, f"La sede está en {w.city}."),
        ("palabra_clave", w.pseudo(), ""),
    ]
    chosen: list[tuple[str, Json, str]] = []
    for key, value, text in w.many(facts, w.number(4, 9)):
        chosen.append((key, value, text or f"La palabra clave del proyecto es «{value}»."))
    noise = [
        fill(w, t) for t in w.many((*w.vocabulary.facts, *_TROUBLE, *_SYSTEM[1:2]), w.number(2, 6)) if "{sys}" not in t
    ]
    texts = [t for _, _, t in chosen] + noise
    w.rng.shuffle(texts)
    w.rng.shuffle(chosen)
    style = w.pick(_KEY_STYLES)
    data: dict[str, Json] = {style(k): v for k, v, _ in chosen}
    if w.chance(0.25):
        data[style("telefono")] = None
    order = w.pick(
        (
            "Extrae en JSON: {}.",
            "Devuelve un objeto JSON con {}. Lo que no conste, null.",
            "Saca del texto {} y responde en JSON.",
            "Datos que quiero, en JSON y en este orden: {}. Si falta uno, null.",
        )
    )
    return talk(w, order.format(join([f"«{k}»" for k in data])), " ".join(texts), dumps(data), True)


def _things(w: World) -> list[str]:
    """A list of arbitrary things to copy: phrases, codes, made-up words, figures or names."""
    makers: tuple[Callable[[], str], ...] = (
        lambda: Need(w, w.pick(w.vocabulary.actions)).ask(),
        w.code,
        w.pseudo,
        w.person,
        lambda: str(w.number(0, 10 ** w.number(2, 7))),
        lambda: fill(w, w.pick(w.vocabulary.facts)),
        lambda: f"{w.pseudo()} {w.code()}",
        lambda: f"{w.pick(_TECH)} {w.pseudo()}",
        lambda: cap(w.fill("{obj} {codigo}")),
        lambda: " ".join(w.pseudo() for _ in range(w.number(2, 6))),
        lambda: w.needs(1)[0].ask(),
        lambda: w.needs(1)[0].say("statement"),
    )
    if w.chance(0.3):
        return list(dict.fromkeys(w.pick(makers)() for _ in range(w.number(4, 9))))
    maker = w.pick(makers)
    return list(dict.fromkeys(maker() for _ in range(w.number(4, 14))))


_ORDINALS = "primer segundo tercer cuarto quinto sexto séptimo octavo noveno décimo".split()


def copying(w: World) -> Document:
    """Repeat, reverse, sort, filter, replace: exact handling of arbitrary lists."""
    things = _things(w)
    style = w.pick(("- {}", "{n}. {}", "{}"))
    as_json = w.chance(0.5)
    what = w.number(0, 9)
    n = w.number(1, len(things))
    if what <= 2:
        order, out = (
            w.pick(
                (
                    "Repite la lista tal cual.",
                    "Copia la lista sin cambiar nada.",
                    "Transcribe los elementos, letra por letra.",
                )
            ),
            things,
        )
    elif what == 3:
        order, out = (
            w.pick(("Escribe la lista al revés.", "Invierte el orden.", "De la última a la primera.")),
            things[::-1],
        )
    elif what == 4:
        order, out = (
            w.pick(("Ordena la lista alfabéticamente.", "Por orden alfabético.")),
            sorted(things, key=str.lower),
        )
    elif what == 5:
        new = _things(w)[0]
        order, out = (
            f"Cambia el elemento {n} por «{new}» y devuelve la lista entera.",
            [*things[: n - 1], new, *things[n:]],
        )
    elif what == 6:
        order, out = f"Quita el elemento {n} y devuelve el resto.", things[: n - 1] + things[n:]
    elif what == 7:
        order, out = (
            f"Devuelve solo los {n} primeros elementos." if n > 1 else "Devuelve solo el primer elemento.",
            things[:n],
        )
    elif what == 8:
        new = _things(w)[-1]
        order, out = f"Añade «{new}» al final y devuelve la lista.", [*things, new]
    else:
        order, out = "Devuelve los elementos de posición impar.", things[::2]
    source = dumps(list[Json](things), w.pick((None, 2))) if w.chance(0.4) else listed(w, things)
    if w.chance(0.25):
        source = f"{fill(w, w.pick(_INTRO))}\n{source}\n{fill(w, w.pick(_TROUBLE))}"
    order += (
        w.pick((" Responde con una lista JSON.", " Formato: array JSON."))
        if as_json
        else w.pick(("", " Una por línea."))
    )
    answer = dumps(list[Json](out)) if as_json else listed(w, out, style)
    if not as_json and style != "{}":
        order += {"- {}": " Con guiones.", "{n}. {}": " Numerada."}[style]
    return talk(w, order, source, answer, as_json)


def indexed_questions(w: World) -> Document:
    """Several exchanges about positions in a list."""
    b = Brief(w, 3, 9)
    document: Document = []
    things = b.asks
    first = True
    for _ in range(w.number(1, 4)):
        i = w.number(0, min(len(things), len(_ORDINALS)) - 1)
        question, answer = w.pick(
            (
                (f"¿Cuál es el {_ORDINALS[i]} punto?", things[i]),
                ("¿Cuántos puntos hay?", f"Hay {len(things)}."),
                ("¿Cuál es el último?", things[-1]),
                (f"Copia el punto {i + 1}.", things[i]),
                (f"¿En qué posición está «{things[i]}»?", f"En la posición {i + 1}."),
                (
                    f"¿Qué punto va después de «{things[i]}»?",
                    things[i + 1] if i + 1 < len(things) else "Ninguno: es el último.",
                ),
                (f"Di el punto {i + 1} de otra manera, con una medida.", b.needs[i].say("statement")),
                (f"¿De qué clase es el punto {i + 1}?", f"{cap(b.needs[i].kind)}."),
                (f"¿Cómo se prueba el punto {i + 1}?", b.needs[i].say("test")),
            )
        )
        document = talk(w, question, present(b), answer) if first else then(document, question, answer)
        first = False
    return document


_REWRITES: tuple[tuple[str, str], ...] = (
    ("Reescribe cada punto como «Que ... pueda ...» o «Que ...».", "que"),
    ("Pon cada punto en infinitivo.", "core"),
    ("Conviértelos en afirmaciones en presente.", "ind"),
    ("Hazlos más cortos.", "short"),
    ("Añade a cada punto una medida.", "statement"),
    ("Conviértelos en preguntas de control.", "question"),
    ("Dilos en forma de «cuando...».", "when"),
    ("Pásalos a compromisos con plazo.", "promise"),
    ("Convierte cada punto en una prueba.", "test"),
    ("Cuéntalos como «Como..., quiero..., para...».", "story"),
    ("Escribe la razón de cada punto.", "reason"),
    ("Escríbelos como novedades ya publicadas.", "release"),
    ("Hazlos comprobables, con cifra o plazo, sin perder sus palabras.", "statement"),
)


def in_form(need: Need, form: str) -> str:
    """A requirement in a frame's form or as one of its grammatical forms."""
    if form == "core":
        return sentence(core_of(need))
    if form in ("que", "ind"):
        if need.archetype.infinitive or (need.archetype.wish if form == "que" else need.archetype.clause):
            return sentence(need.slots[form])
        return {
            "que": f"Que se cumpla «{need.text}».",
            "ind": f"Se cumple «{need.text}».",
        }[form]
    return need.say(form)


def rewriting(w: World) -> Document:
    """A list rewritten item by item in another form, as text or JSON."""
    needs = w.needs(w.number(3, 10))
    order, form = w.pick(_REWRITES)
    asks = [n.ask() for n in needs]
    out = [in_form(n, form) for n in needs]
    material = dumps(list[Json](asks), w.pick((None, 2))) if w.chance(0.4) else listed(w, asks)
    chance = w.random()
    if chance < 0.3:
        return talk(w, f"{order} Devuelve una lista JSON.", material, dumps(list[Json](out)), True)
    if chance < 0.5:
        keys = w.pick(
            (
                ("antes", "despues"),
                ("original", "nuevo"),
                ("de", "a"),
                ("entrada", "salida"),
                ("texto", "reescrito"),
            )
        )
        rows: list[Json] = [{keys[0]: a, keys[1]: o} for a, o in zip(asks, out, strict=True)]
        return talk(
            w,
            f"{order} Devuelve una lista JSON de objetos con «{keys[0]}» y «{keys[1]}».",
            material,
            dumps(rows),
            True,
        )
    document = talk(w, order, material, listed(w, out))
    if w.chance(0.3):
        order, form = w.pick(_REWRITES)
        document = then(document, order, listed(w, [in_form(n, form) for n in needs]))
    return document


def _record(w: World) -> dict[str, Json]:
    """A flat or nested record of this world."""
    data: dict[str, Json] = {
        "empresa": w.company,
        "ciudad": w.city,
        "codigo": w.code(),
        "contacto": w.person(),
        "sistemas": list[Json](w.systems),
        "activo": w.chance(0.5),
        "usuarios": w.number(5, 900),
        "puntos": [n.ask() for n in w.needs(w.number(2, 6))],
        "nota": w.needs(1)[0].say("statement"),
        "clave": w.pseudo(),
        "norma": w.norms[0],
        "plazo": w.date,
        "coste": round(w.random() * 1000, 2),
        "responsables": list[Json](w.actors[:2]),
        "aviso": fill(w, w.pick(_TROUBLE)),
        "enlace": f"/{w.pseudo()}/{w.number(1, 999)}",
        "ruta": f"C:\\{w.pseudo()}\\{w.code()}",
    }
    keys = w.many(list(data), w.number(4, 9))
    record = {k: data[k] for k in keys}
    if w.chance(0.4):
        inner = {k: v for k, v in data.items() if k not in record}
        record[w.pick(("detalle", "anexo", "ficha", w.pseudo()))] = {
            k: inner[k] for k in w.many(list(inner), w.number(2, 4))
        }
    return record


def _as_markdown(data: dict[str, Json], level: int = 2) -> str:
    parts = []
    for key, value in data.items():
        if isinstance(value, dict):
            parts.append(f"{'#' * level} {key}\n\n{_as_markdown(value, level + 1)}")
        elif isinstance(value, list):
            parts.append(f"{'#' * level} {key}\n\n" + "\n".join(f"- {v}" for v in value))
        else:
            parts.append(f"{'#' * level} {key}\n\n{dumps(value) if not isinstance(value, str) else value}")
    return "\n\n".join(parts)


def conversion(w: World) -> Document:
    """JSON to Markdown, or back."""
    data = _record(w)
    text, markdown = dumps(data, w.pick((None, 2, 2))), _as_markdown(data)
    if w.chance(0.5):
        return talk(
            w,
            w.pick(
                (
                    "Pasa el JSON a Markdown, una sección por clave.",
                    "Convierte a Markdown.",
                    "Muestra este JSON como documento Markdown.",
                )
            ),
            text,
            markdown,
        )
    return talk(
        w,
        w.pick(
            (
                "Pasa este Markdown a JSON: una clave por sección.",
                "Devuelve el documento como JSON.",
                "Convierte las secciones en claves de un objeto JSON.",
            )
        ),
        markdown,
        dumps(data),
        True,
    )


def json_repair(w: World) -> Document:
    """Broken JSON to valid JSON."""
    data = _record(w)
    if w.chance(0.4):
        b = Brief(w, 2, 5)
        data = write_spec(b, make_spec(w, 3, 6))
    good = dumps(data)
    rows = good.split("\n")
    for _ in range(w.number(1, 3)):
        i = w.number(1, len(rows) - 2)
        fault = w.number(0, 4)
        if fault == 0:
            rows[i] = rows[i].rstrip(",")
        elif fault == 1:
            rows[i] = rows[i].replace('"', "'", 2)
        elif fault == 2 and rows[i].endswith('"'):
            rows[i] = rows[i][:-1]
        elif fault == 3 and rows[i].endswith(("]", "}")):
            rows[i] += ","
        else:
            rows[i] = rows[i].replace('":', ":", 1)
    bad = "\n".join(rows)
    if w.chance(0.3):
        bad = bad.rstrip("}").rstrip()
    if w.chance(0.3):
        bad = "\n".join(line.strip() for line in bad.split("\n"))
    if bad == good:
        bad = good[:-1]
    return talk(
        w,
        w.pick(
            (
                "Arregla este JSON.",
                "Este JSON está roto: devuélvelo correcto.",
                "Corrige la sintaxis sin tocar los valores.",
                "Repara el JSON y nada más.",
            )
        ),
        bad,
        good,
        True,
    )


def json_edit(w: World) -> Document:
    """One change to a JSON object; everything else is copied."""
    data = _record(w)
    keys = list(data)
    key = w.pick(keys)
    what = w.number(0, 4)
    lists = [k for k in keys if isinstance(data[k], list)]
    if what == 0:
        new = w.code()
        order, out = f"Pon «{new}» en «{key}».", {k: (new if k == key else v) for k, v in data.items()}
    elif what == 1:
        order, out = f"Quita la clave «{key}».", {k: v for k, v in data.items() if k != key}
    elif what == 2:
        new = w.pseudo()
        order, out = (
            f"La clave «{key}» pasa a llamarse «{new}».",
            {(new if k == key else k): v for k, v in data.items()},
        )
    elif what == 3 and lists:
        key, new = w.pick(lists), w.needs(1)[0].ask()
        values = data[key]
        assert isinstance(values, list)
        order, out = f"Añade «{new}» al final de «{key}».", {**data, key: [*values, new]}
    else:
        order, out = "Ordena las claves alfabéticamente.", dict(sorted(data.items()))
    return talk(
        w,
        order + w.pick(("", " Devuelve el objeto completo.", " Lo demás queda igual.")),
        dumps(data, w.pick((None, 2))),
        dumps(out),
        True,
    )


def finish_list(w: World) -> Document:
    """The first answers are given; the rest follow in the same manner."""
    b = Brief(w, 4, 9)
    form = w.pick(("statement", "when", "test", "story", "promise", "question"))
    out = [n.say(form) for n in b.needs]
    k = w.number(1, len(out) - 2)
    style = w.pick(("{n}. {}", "- {}"))
    given, rest = listed(w, out, style).split("\n")[:k], listed(w, out, style).split("\n")[k:]
    order = w.pick(
        (
            "Sigue la lista de respuestas hasta el final, de la misma manera.",
            "Completa lo que falta: las primeras ya están.",
            "Continúa con los puntos que quedan.",
        )
    )
    return talk(
        w,
        order,
        f"{present(b)}\n\n{w.pick(('Hecho:', 'Respuestas hasta ahora:', 'Ya escrito:'))}\n" + "\n".join(given),
        "\n".join(rest),
    )


def brief_questions(w: World) -> Document:
    """Questions whose answers stand in the brief."""
    b = Brief(w, 3, 7)
    asked = w.many(
        (
            ("¿Qué empresa es?", f"{w.company}."),
            ("¿Qué sistema aparece en el contexto?", b.system),
            ("¿Qué se dice de la situación?", " ".join(b.facts)),
            ("¿Cuáles son los problemas?", " ".join(b.troubles)),
            ("¿Qué límites hay?", " ".join(b.limits)),
            ("Enumera los puntos.", listed(w, b.asks, "- {}")),
            ("¿Cuántos puntos se piden?", f"Se piden {len(b.asks)} puntos."),
            ("¿Qué pide el primer punto?", b.needs[0].say("short")),
            ("Resume en una frase.", summary(b, 1)),
            ("¿Qué preguntarías al cliente?", listed(w, lines(w, _OPEN, 3), "{n}. {}")),
            ("¿Qué riesgos ves?", listed(w, lines(w, _DANGERS, 3), "- {}")),
            ("¿Cómo sabremos si ha salido bien?", listed(w, lines(w, _KPIS, 3), "- {}")),
        ),
        w.number(2, 5),
    )
    material = f"{b.context}\n\n{w.pick(_HEADS)}\n{listed(w, b.asks)}"
    if "empresa" in asked[0][0] and w.company not in material:
        asked = asked[1:]
    document = talk(w, asked[0][0], material, asked[0][1])
    for question, answer in asked[1:]:
        document = then(document, question, answer)
    return document


def data_dictionary(w: World) -> Document:
    """Fields of an object, with type and rule: table or JSON."""
    fields = w.many(FIELDS, w.number(4, 9))
    kinds = [w.pick(("texto", "fecha", "entero", "decimal", "lista", "booleano")) for _ in fields]
    must = [w.chance(0.6) for _ in fields]
    rules = [w.fill(w.pick(_FIELD_RULES)) for _ in fields]
    thing = w.pick(w.objects)
    given = listed(
        w,
        [
            f"{f} ({k}{', obligatorio' if m else ''}): {r}"
            for f, k, m, r in zip(fields, kinds, must, rules, strict=True)
        ],
    )
    material = f"{w.pick(('Campos de', 'Datos de', 'Registro de'))} {thing}:\n{given}"
    if w.chance(0.5):
        data: Json = {
            bare(thing): [
                {"campo": f, "tipo": k, "obligatorio": m, "regla": r}
                for f, k, m, r in zip(fields, kinds, must, rules, strict=True)
            ]
        }
        return talk(
            w,
            "Diccionario de datos en JSON: la clave es el objeto y cada campo lleva "
            "«campo», «tipo», «obligatorio» (true o false) y «regla».",
            material,
            dumps(data),
            True,
        )
    rows = [[f, k, "sí" if m else "no", r] for f, k, m, r in zip(fields, kinds, must, rules, strict=True)]
    return talk(
        w,
        "Haz el diccionario de datos en tabla Markdown: campo, tipo, obligatorio y regla.",
        material,
        _table(("Campo", "Tipo", "Obligatorio", "Regla"), rows),
    )


_FIELD_RULES = pool(
    """
máximo {n_8_90} caracteres|no puede ser anterior al {fecha}|valor entre {n_1_9} y {n_10_999}|viene de
{sys}|lo rellena {actor}|único en {company}|se valida contra {sys}|formato {codigo}|se cifra según
{norm}|vacío si no hay {prueba}|se recalcula cada {n_5_60} minutos
"""
)


def sla_table(w: World) -> Document:
    """Service levels from prose to table or JSON."""
    names = w.many(["crítica", "alta", "media", "baja", "consulta", w.pseudo()], w.number(3, 5))
    rows = [[cap(x), f"{w.number(5, 90)} minutos", f"{w.number(2, 72)} horas", w.pick(CHANNELS)] for x in names]
    told = " ".join(
        w.pick(
            (
                "Una incidencia {a} se atiende en {b} y se resuelve en {c}, por {d}.",
                "Para la gravedad {a}: {b} de respuesta, {c} de solución, aviso por {d}.",
                "Nivel {a}, {b} para contestar y {c} para cerrar; canal, {d}.",
            )
        ).format(a=r[0].lower(), b=r[1], c=r[2], d=r[3])
        for r in rows
    )
    if w.chance(0.5):
        keys = ("gravedad", w.pick(("respuesta", "atencion")), w.pick(("solucion", "cierre")), "canal")
        return talk(
            w,
            f"Pasa los niveles de servicio a una lista JSON con {join([f'«{k}»' for k in keys])}.",
            told,
            dumps([dict(zip(keys, r, strict=True)) for r in rows]),
            True,
        )
    return talk(
        w,
        "Resume los niveles de servicio en una tabla Markdown.",
        told,
        _table(("Gravedad", "Respuesta", "Solución", "Canal"), rows),
    )


def roadmap(w: World) -> Document:
    """Requirements spread over quarters or phases, none forgotten."""
    b = Brief(w, 4, 9)
    k = w.number(2, 4)
    size = -(-len(b.needs) // k)
    groups = [b.needs[i : i + size] for i in range(0, len(b.needs), size)]
    label = w.pick(("Fase", "Trimestre", "Entrega", "Oleada", "Etapa"))
    form = w.pick(("short", "promise", "statement"))
    if w.chance(0.5):
        data: dict[str, Json] = {f"{label} {i + 1}": [n.say(form) for n in g] for i, g in enumerate(groups)}
        return talk(
            w,
            f"Reparte los puntos, en orden, de {size} en {size}, y devuelve un objeto JSON "
            f"con claves «{label} 1», «{label} 2»...",
            present(b),
            dumps(data),
            True,
        )
    text = "\n\n".join(
        f"## {label} {i + 1} ({w.pick(MONTHS)})\n\n" + listed(w, [n.say(form) for n in g], "- {}")
        for i, g in enumerate(groups)
    )
    return talk(
        w,
        f"Hoja de ruta en Markdown: {label.lower()}s de {size} puntos, en el orden recibido.",
        present(b),
        text,
    )


def interview_script(w: World) -> Document:
    """Questions for an interview about each requirement."""
    b = Brief(w, 3, 6)
    openings = (
        "¿Cómo hace hoy para {}?",
        "Cuénteme la última vez que necesitó {}.",
        "¿Qué le impide {}?",
        "¿Cada cuánto le toca {}?",
        "¿Quién más debería poder {}?",
        "¿Qué pasaría si no pudiera {}?",
    )
    parts = [
        f"# Entrevista a {w.actors[0]}",
        f"{w.pick(('Duración', 'Tiempo'))}: {w.number(20, 90)} minutos. Lugar: {w.city}.",
    ]
    for i, n in enumerate(b.needs):
        if n.archetype.infinitive:
            asked = [q.format(n.slots["inf"]) for q in w.many(openings, w.number(1, 3))]
        else:
            asked = [f"¿Qué entiende usted por «{n.text}»?", "¿Con qué cifra se quedaría conforme?"][: w.number(1, 2)]
        parts.append(f"## Bloque {i + 1}: {n.say('short').rstrip('.')}\n\n" + listed(w, asked, "- {}"))
    return talk(
        w,
        w.pick(
            (
                "Prepara el guion de la entrevista a {}, un bloque por punto.",
                "Guion de entrevista para {}: preguntas abiertas, por bloques.",
            )
        ).format(w.actors[0]),
        present(b),
        "\n\n".join(parts),
    )


def decision_record(w: World) -> Document:
    """An architecture decision record in Markdown or JSON."""
    b = Brief(w, 3, 5)
    options = w.many(
        [*w.systems, f"una API con {w.pick(_TECH)}", f"el módulo {cap(w.pseudo())}", "un desarrollo propio"],
        3,
    )
    chosen = w.pick(options)
    why = [n.say("reason") for n in b.needs[:3]]
    after = [n.say("statement") for n in b.needs]
    number = w.number(1, 90)
    material = f"{b.context}\n\nOpciones: {join(options)}. Elegida: {chosen}.\n{listed(w, b.asks)}"
    if w.chance(0.4):
        data: dict[str, Json] = {
            "numero": number,
            "estado": w.pick(("aceptada", "propuesta")),
            "decision": f"Usar {chosen}.",
            "opciones": list[Json](options),
            "motivos": list[Json](why),
            "consecuencias": list[Json](after),
        }
        return talk(
            w,
            f"Registro de decisión número {number} en JSON: "
            f"{join([f'«{k}»' for k in data])}. Una consecuencia por punto.",
            material,
            dumps(data),
            True,
        )
    text = (
        f"# ADR {number:03d}: {chosen}\n\n## "
        f"Estado\n\n{w.pick(('Aceptada', 'Propuesta'))}, {w.date}.\n\n## "
        f"Situación\n\n{b.context}\n\n## "
        f"Opciones\n\n{listed(w, [sentence(o) for o in options], '- {}')}\n\n## "
        f"Decisión\n\nSe elige {chosen}.\n\n{listed(w, why, '- {}')}\n\n## "
        f"Consecuencias\n\n{listed(w, after, '{n}. {}')}"
    )
    return talk(
        w,
        f"Escribe el registro de decisión (ADR {number:03d}) con fecha {w.date}; una consecuencia por punto.",
        material,
        text,
    )


def comparison(w: World) -> Document:
    """Two options judged against each requirement."""
    b = Brief(w, 3, 7)
    one, two = w.many([*w.systems, f"el servicio {cap(w.pseudo())}", "un desarrollo propio"], 2)
    marks = [(w.number(1, 5), w.number(1, 5)) for _ in b.needs]
    total = (sum(m[0] for m in marks), sum(m[1] for m in marks))
    shorts = [n.say("short").rstrip(".") for n in b.needs]
    material = (
        f"{present(b)}\n\nNotas de {one}: {', '.join(str(m[0]) for m in marks)}. Notas "
        f"de {two}: {', '.join(str(m[1]) for m in marks)}."
    )
    verdict = (
        f"Empatan a {total[0]} puntos."
        if total[0] == total[1]
        else sentence(f"gana {one if total[0] > total[1] else two}, {max(total)} a {min(total)}")
    )
    if w.chance(0.4):
        data: dict[str, Json] = {
            "filas": [{"punto": s, one: m[0], two: m[1]} for s, m in zip(shorts, marks, strict=True)],
            "totales": {one: total[0], two: total[1]},
            "veredicto": verdict,
        }
        return talk(
            w,
            f"Compara {one} y {two} punto por punto, en JSON con «filas», «totales» y «veredicto».",
            material,
            dumps(data),
            True,
        )
    rows = [[s, str(m[0]), str(m[1])] for s, m in zip(shorts, marks, strict=True)]
    rows.append(["**Total**", str(total[0]), str(total[1])])
    return talk(
        w,
        f"Tabla Markdown que compare {one} y {two} en cada punto, con total y veredicto.",
        material,
        _table(("Punto", cap(one), cap(two)), rows) + f"\n\n{verdict}",
    )


def checklists(w: World) -> Document:
    """A check list for each role."""
    needs = w.needs(w.number(5, 9))
    owners = [w.pick(w.actors[:3]) for _ in needs]
    material = listed(w, [f"{cap(o)}: {n.text}" for o, n in zip(owners, needs, strict=True)], "- {}")
    groups = {o: [n for n, x in zip(needs, owners, strict=True) if x == o] for o in dict.fromkeys(owners)}
    form = w.pick(("question", "test", "short"))
    if w.chance(0.5):
        data: dict[str, Json] = {cap(o): [n.say(form) for n in g] for o, g in groups.items()}
        return talk(
            w,
            "Agrupa por rol y devuelve JSON: cada clave es un rol y su valor, la lista de control.",
            material,
            dumps(data),
            True,
        )
    text = "\n\n".join(f"### {cap(o)}\n\n" + listed(w, [n.say(form) for n in g], "- [ ] {}") for o, g in groups.items())
    return talk(w, "Haz una lista de control por rol, con casillas.", material, text)


def kpi_plan(w: World) -> Document:
    """Indicators with base, target and owner, from prose."""
    rows = [
        (
            cap(m),
            w.number(40, 95),
            w.number(2, 39),
            w.pick(w.actors),
            w.pick(("semanal", "mensual", "trimestral")),
        )
        for m in (w.fill(x) for x in w.many(w.vocabulary.metrics, w.number(3, 6)))
    ]
    told = " ".join(
        w.pick(
            (
                "{m}: hoy {a}, meta {b}, lo sigue {o} con revisión {p}.",
                "{m} está en {a} y debe bajar a {b}; responde {o}, medida {p}.",
                "Queremos {m} en {b} (ahora {a}); dueño: {o}; frecuencia {p}.",
            )
        ).format(m=m, a=a, b=b, o=o, p=p)
        for m, a, b, o, p in rows
    )
    material = f"{fill(w, w.pick(_INTRO))} {told}"
    if w.chance(0.6):
        keys = [
            w.pick(x)
            for x in (
                ("indicador", "nombre", "kpi"),
                ("base", "hoy", "actual"),
                ("meta", "objetivo", "target"),
                ("responsable", "dueno"),
                ("frecuencia", "revision"),
            )
        ]
        return talk(
            w,
            f"Plan de indicadores en JSON: «plan», lista de objetos con {join([f'«{k}»' for k in keys])}.",
            material,
            dumps({"plan": [dict(zip(keys, r, strict=True)) for r in rows]}),
            True,
        )
    return talk(
        w,
        "Tabla Markdown con los indicadores.",
        material,
        _table(("Indicador", "Hoy", "Meta", "Responsable", "Revisión"), [[str(x) for x in r] for r in rows]),
    )


def retrospective(w: World) -> Document:
    """What went well, badly and what to do, grouped from marked notes."""
    groups: dict[str, list[str]] = {"+": [], "-": [], ">": []}
    notes = []
    for n in w.needs(w.number(5, 10)):
        mark = w.pick(("+", "-", ">"))
        text = (
            n.say("release")
            if mark == "+"
            else fill(w, w.pick(w.vocabulary.problems))
            if mark == "-"
            else n.say("promise")
        )
        groups[mark].append(text)
        notes.append(f"[{mark}] {text}")
    names = w.pick(
        (
            ("bien", "mal", "acciones"),
            ("seguir", "dejar", "empezar"),
            ("logros", "problemas", "mejoras"),
            ("verde", "rojo", "siguiente"),
        )
    )
    order = f"Retrospectiva: [+] va a «{names[0]}», [-] a «{names[1]}» y [>] a «{names[2]}»."
    if w.chance(0.6):
        return talk(
            w,
            f"{order} Responde en JSON.",
            "\n".join(notes),
            dumps({k: list[Json](v) for k, v in zip(names, groups.values(), strict=True)}),
            True,
        )
    text = "\n\n".join(
        f"## {cap(k)}\n\n" + (listed(w, v, "- {}") if v else "Nada.")
        for k, v in zip(names, groups.values(), strict=True)
    )
    return talk(w, f"{order} Responde en Markdown.", "\n".join(notes), text)


def random_copy(w: World) -> Document:
    """Keys and values without meaning, copied, looked up or filled into a template."""
    makers: tuple[Callable[[], str], ...] = (
        w.pseudo,
        w.code,
        w.person,
        lambda: str(w.number(1, 99999)),
        lambda: f"{w.pseudo()} {w.pseudo()} {w.number(1, 99)}",
        lambda: w.pick(_TECH),
        lambda: f'dice "{w.pseudo()}" y calla',
        lambda: cap(f"{w.pseudo()} de {w.pseudo()}"),
    )
    data = {w.pick((w.pseudo, w.pseudo, w.code))(): w.pick(makers)() for _ in range(w.number(4, 18))}
    keys = list(data)
    what = w.number(0, 4)
    pairs = "\n".join(f"{k}{w.pick((': ', ' = ', ' -> '))}{v}" for k, v in data.items())
    if what == 0:
        return talk(
            w,
            w.pick(
                (
                    "Pasa los pares a un objeto JSON.",
                    "Devuelve JSON con estos pares.",
                    "Clave y valor, a JSON.",
                )
            ),
            pairs,
            dumps(dict[str, Json](data)),
            True,
        )
    if what == 1:
        some = w.many(keys, w.number(2, len(keys)))
        return talk(
            w,
            f"Devuelve en JSON solo {join([f'«{k}»' for k in some])}, en este orden.",
            pairs,
            dumps({k: data[k] for k in some}),
            True,
        )
    if what == 2:
        document = talk(w, f"¿Qué valor tiene «{keys[0]}»?", pairs, data[keys[0]])
        for k in w.many(keys, w.number(1, 4)):
            document = then(document, w.pick(("¿Y «{}»?", "¿«{}»?", "Ahora «{}».")).format(k), data[k])
        return document
    if what == 3:
        return talk(w, "Escribe los valores, uno por línea, sin las claves.", pairs, "\n".join(data.values()))
    wrap = w.pseudo()
    return talk(
        w,
        f"Devuelve una lista JSON de objetos con «{wrap}» (la clave), «{wrap}2» (el valor) y «n» (el orden).",
        pairs,
        dumps([{wrap: k, f"{wrap}2": v, "n": i + 1} for i, (k, v) in enumerate(data.items())]),
        True,
    )


_SCENES = pool(
    """
Son las {n_6_9}:{n_10_59} en {ciudad} y {actor} abre {product}.|Lo primero que ve: {plural}, con {campo} y
{campo2} a la vista.|{actor} puede {i}.|Antes, {problem}.|Ahora el aviso llega por {canal} y {actor2} lo
confirma en {n_1_9} minutos.|{actor2} tarda {n_2_9} segundos en encontrar {obj}.|A media mañana toca revisar
{obj} con {prueba}.|En {sys} queda todo guardado, con fecha y hora.|{problem}, y aun así el turno
sigue.|Nadie ha tenido que llamar a {actor2}.|El recuento cuadra con {sys} por primera vez en {n_2_9}
meses.|{actor2} {pres}.|A las {n_12_16}:{n_10_59} llega una auditoría de {norm}.|{actor} enseña la bitácora
y no falta nada.|Después de comer, {actor} {pres}.|Cuando cierra el turno, {plural} están al día.|{actor} se
va a casa {n_10_50} minutos antes que el mes pasado.|El {dia}, {actor2} lo contará en la reunión.|Por la
tarde, {sys} deja de responder {n_2_20} minutos, y no se pierde nada.|De {plural} apenas quedan {n_2_9}
pendientes.|Con {device} basta para {i}.
"""
)


def scene(w: World) -> Document:
    """Continuous prose: a day with the product."""
    b = Brief(w, 2, 4)
    verbs = [n for n in (Need(w, a) for a in w.many(w.vocabulary.actions, 12)) if n.archetype.present]
    paragraphs = []
    count = w.number(6, 16)
    for i, template in enumerate([_SCENES[0], *w.many(_SCENES[1:], count)]):
        slots = BriefSlots(w)
        need = verbs[i % len(verbs)]
        slots["i"], slots["pres"] = need.slots["inf"], need.slots["pres"]
        paragraphs.append(sentence(template.format_map(slots)))
    k = w.number(3, 6)
    text = "\n\n".join(" ".join(paragraphs[i : i + k]) for i in range(0, len(paragraphs), k))
    return talk(
        w,
        w.pick(
            (
                "Cuenta un día con {p} en {c}.",
                "Describe cómo será una jornada en {c} con {p}.",
                "Escribe en prosa una jornada de {a} en {c}.",
                "Relata el antes y el después en {c}.",
            )
        ).format(p=w.product, c=w.company, a=w.actors[0]),
        b.context,
        text,
    )


def merge_lists(w: World) -> Document:
    """Two lists joined without repetition, or their difference."""
    things = _things(w)
    k = len(things) // 2
    overlap = w.many(things[:k], w.number(0, 2)) if k else []
    one, two = things[:k] or things, [*things[k:], *overlap]
    w.rng.shuffle(two)
    what = w.number(0, 2)
    out = (
        [*one, *(x for x in two if x not in one)]
        if what == 0
        else [x for x in one if x not in two]
        if what == 1
        else [x for x in one if x in two]
    )
    order = (
        "Une las dos listas sin repetir: primero A y luego lo nuevo de B.",
        "¿Qué hay en A que no esté en B?",
        "¿Qué elementos están en A y en B?",
    )[what]
    names: dict[str, Json] = {"A": list[Json](one), "B": list[Json](two)}
    material = dumps(names, w.pick((None, 2))) if w.chance(0.5) else f"A:\n{listed(w, one)}\n\nB:\n{listed(w, two)}"
    if w.chance(0.6):
        key = w.pick(("resultado", "lista", "comunes" if what == 2 else "elementos"))
        return talk(
            w,
            f"{order} Responde en JSON, con la clave «{key}».",
            material,
            dumps({key: list[Json](out)}),
            True,
        )
    return talk(w, order, material, listed(w, out, "- {}") if out else "Ninguno.")


def planner(w: World) -> Document:
    """A week's agenda from loose availability, as table or JSON."""
    days = w.many(WEEKDAYS, w.number(3, 5))
    days.sort(key=WEEKDAYS.index)
    rows = [
        (
            d,
            f"{w.number(8, 18)}:{w.pick(('00', '15', '30', '45'))}",
            w.person(),
            Need(w, w.pick(w.vocabulary.actions)).slots["inf"],
        )
        for d in days
    ]
    told = [
        w.pick(
            (
                "{p} puede el {d} a las {h} para {t}.",
                "El {d} a las {h} vemos con {p} cómo {t}.",
                "{t}: el {d}, {h}, con {p}.",
            )
        ).format(d=d, h=h, p=p, t=t)
        for d, h, p, t in rows
    ]
    told = [cap(t) for t in told]
    shuffled = w.many(told, len(told))
    if w.chance(0.6):
        data: list[Json] = [{"dia": d, "hora": h, "con": p, "tema": cap(t)} for d, h, p, t in rows]
        return talk(
            w,
            "Ordena la agenda de lunes a viernes y devuelve JSON: lista con «dia», «hora», «con» y «tema».",
            " ".join(shuffled),
            dumps(data),
            True,
        )
    return talk(
        w,
        "Ordena la agenda de lunes a viernes en una tabla Markdown.",
        " ".join(shuffled),
        _table(("Día", "Hora", "Con", "Tema"), [(cap(d), h, p, cap(t)) for d, h, p, t in rows]),
    )
