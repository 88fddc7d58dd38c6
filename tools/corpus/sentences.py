"""Spanish sentences about software products: verb forms, slots, requirements and their rewritings.

A `Need` is one requirement. It can be asked for in many ways (`Need.ask`) and answered in many forms
(`Need.say`) that keep its nouns, names and figures. A `World` is the product that a document is about.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from string import Formatter
from typing import TypeVar

from tools.corpus.industry import Industry

T = TypeVar("T")


def pool(text: str) -> tuple[str, ...]:
    """The entries of a text, separated by bars; a line break counts as a space."""
    return tuple(" ".join(entry.split()) for entry in text.split("|"))


# ---------------------------------------------------------------- verbs

_IRREGULAR = {
    infinitive: (present, subjunctive)
    for infinitive, present, subjunctive in (
        entry.split(":")
        for entry in """
cerrar:cierra:cierre mostrar:muestra:muestre encontrar:encuentra:encuentre comprobar:comprueba:compruebe
probar:prueba:pruebe aprobar:aprueba:apruebe contar:cuenta:cuente recordar:recuerda:recuerde
renovar:renueva:renueve empezar:empieza:empiece comenzar:comienza:comience negar:niega:niegue
denegar:deniega:deniegue desplegar:despliega:despliegue recomendar:recomienda:recomiende
volcar:vuelca:vuelque colgar:cuelga:cuelgue acordar:acuerda:acuerde forzar:fuerza:fuerce
reforzar:refuerza:refuerce enviar:envía:envíe reenviar:reenvía:reenvíe ampliar:amplía:amplíe
vaciar:vacía:vacíe variar:varía:varíe guiar:guía:guíe confiar:confía:confíe desviar:desvía:desvíe
enfriar:enfría:enfríe fotografiar:fotografía:fotografíe evaluar:evalúa:evalúe reevaluar:reevalúa:reevalúe
actuar:actúa:actúe continuar:continúa:continúe efectuar:efectúa:efectúe graduar:gradúa:gradúe
puntuar:puntúa:puntúe situar:sitúa:sitúe adecuar:adecua:adecue averiguar:averigua:averigüe dar:da:dé
regar:riega:riegue sembrar:siembra:siembre calentar:calienta:caliente sentar:sienta:siente
apretar:aprieta:apriete gobernar:gobierna:gobierne jugar:juega:juegue aislar:aísla:aísle
pensar:piensa:piense atravesar:atraviesa:atraviese soltar:suelta:suelte costear:costea:costee ver:ve:vea
leer:lee:lea releer:relee:relea hacer:hace:haga rehacer:rehace:rehaga deshacer:deshace:deshaga
poner:pone:ponga disponer:dispone:disponga exponer:expone:exponga componer:compone:componga
reponer:repone:reponga proponer:propone:proponga imponer:impone:imponga tener:tiene:tenga
mantener:mantiene:mantenga obtener:obtiene:obtenga retener:retiene:retenga contener:contiene:contenga
detener:detiene:detenga traer:trae:traiga extraer:extrae:extraiga saber:sabe:sepa mover:mueve:mueva
remover:remueve:remueva devolver:devuelve:devuelva resolver:resuelve:resuelva volver:vuelve:vuelva
atender:atiende:atienda entender:entiende:entienda extender:extiende:extienda perder:pierde:pierda
defender:defiende:defienda encender:enciende:encienda conocer:conoce:conozca reconocer:reconoce:reconozca
establecer:establece:establezca restablecer:restablece:restablezca ofrecer:ofrece:ofrezca
aparecer:aparece:aparezca proteger:protege:proteja recoger:recoge:recoja escoger:escoge:escoja
prever:prevé:prevea proveer:provee:provea ejercer:ejerce:ejerza vencer:vence:venza caducar:caduca:caduque
pedir:pide:pida despedir:despide:despida impedir:impide:impida medir:mide:mida servir:sirve:sirva
seguir:sigue:siga perseguir:persigue:persiga conseguir:consigue:consiga elegir:elige:elija
corregir:corrige:corrija dirigir:dirige:dirija exigir:exige:exija restringir:restringe:restrinja
repetir:repite:repita convertir:convierte:convierta advertir:advierte:advierta invertir:invierte:invierta
revertir:revierte:revierta sugerir:sugiere:sugiera referir:refiere:refiera
transferir:transfiere:transfiera requerir:requiere:requiera preferir:prefiere:prefiera
adquirir:adquiere:adquiera construir:construye:construya reconstruir:reconstruye:reconstruya
distribuir:distribuye:distribuya redistribuir:redistribuye:redistribuya incluir:incluye:incluya
excluir:excluye:excluya concluir:concluye:concluya sustituir:sustituye:sustituya
restituir:restituye:restituya contribuir:contribuye:contribuya destruir:destruye:destruya
disminuir:disminuye:disminuya atribuir:atribuye:atribuya reducir:reduce:reduzca producir:produce:produzca
reproducir:reproduce:reproduzca traducir:traduce:traduzca conducir:conduce:conduzca
introducir:introduce:introduzca deducir:deduce:deduzca salir:sale:salga decir:dice:diga
predecir:predice:prediga prohibir:prohíbe:prohíba reunir:reúne:reúna prevenir:previene:prevenga
intervenir:interviene:intervenga distinguir:distingue:distinga ser:es:sea estar:está:esté haber:hay:haya
ir:va:vaya poder:puede:pueda deber:debe:deba venir:viene:venga
""".split()
    )
}
_REGULAR_ER_IR = frozenset(
    """
vender responder correr recorrer someter depender romper ceder acceder proceder conceder exceder aprender
comprender suspender emprender meter prometer abrir reabrir recibir percibir escribir describir inscribir
transcribir suscribir subir emitir admitir permitir transmitir remitir omitir imprimir reimprimir compartir
repartir partir definir redefinir añadir decidir dividir coincidir asistir existir consistir cubrir descubrir
cumplir unir interrumpir discutir debatir combatir fundir difundir confundir resumir asumir consumir acudir
vivir surgir reescribir prescribir incumplir pulir
""".split()
)
_REGULAR_AR = """
registrar exportar importar cargar guardar consultar buscar filtrar ordenar asignar reasignar avisar notificar
alertar bloquear desbloquear validar revisar firmar adjuntar descargar imprimar publicar programar reprogramar
cancelar anular archivar borrar eliminar cifrar anonimizar sincronizar integrar conectar calcular estimar
clasificar etiquetar agrupar comparar conciliar cruzar marcar tarar pesar escanear rastrear localizar
monitorizar monitorear controlar auditar verificar confirmar rechazar solicitar tramitar gestionar modificar
actualizar cambiar editar crear generar preparar planificar repartir cobrar pagar facturar liquidar reembolsar
abonar reservar apartar entregar despachar trasladar mover ajustar configurar activar desactivar limitar
priorizar escalar derivar llamar hablar tardar durar quedar pasar llegar funcionar soportar aguantar tolerar
respetar usar utilizar aceptar aplicar aumentar bajar superar dejar evitar detectar identificar autenticar
autorizar conservar documentar capturar anotar apuntar digitalizar transformar trabajar operar arrancar
restaurar recuperar replicar respaldar copiar duplicar migrar trazar vincular enlazar relacionar rellenar
completar terminar finalizar iniciar lanzar ejecutar presentar visualizar pintar dibujar listar tomar sacar
retirar ingresar anticipar adelantar retrasar aplazar congelar fijar necesitar llevar cuidar formar
capacitar entrenar invitar citar convocar votar puntear valorar calificar comentar traspasar ubicar
orientar informar reportar exhibir tratar ocultar enmascarar revocar caducar expirar rotar almacenar
""".split()
_NOT_VERBS = frozenset(
    """
        lugar hogar mar par bar titular familiar escolar militar celular auxiliar similar regular
        particular dólar collar altar hangar telar pilar solar lunar popular modular taller alquiler ayer
        mujer placer líder alfiler cualquier bienestar malestar ejemplar preliminar hospitalar circular
        escáner haber deber
        """.split()
)
_NOUN_OF = dict(
    entry.split(":")
    for entry in """
registrar:el_registro exportar:la_exportación importar:la_importación consultar:la_consulta
buscar:la_búsqueda filtrar:el_filtrado ordenar:la_ordenación asignar:la_asignación
reasignar:la_reasignación notificar:la_notificación bloquear:el_bloqueo validar:la_validación
revisar:la_revisión firmar:la_firma adjuntar:la_incorporación descargar:la_descarga imprimir:la_impresión
publicar:la_publicación programar:la_programación reprogramar:la_reprogramación cancelar:la_cancelación
anular:la_anulación archivar:el_archivo borrar:el_borrado eliminar:la_eliminación cifrar:el_cifrado
anonimizar:la_anonimización sincronizar:la_sincronización integrar:la_integración calcular:el_cálculo
estimar:la_estimación clasificar:la_clasificación agrupar:la_agrupación comparar:la_comparación
conciliar:la_conciliación escanear:el_escaneo rastrear:el_rastreo localizar:la_localización
controlar:el_control auditar:la_auditoría verificar:la_verificación confirmar:la_confirmación
rechazar:el_rechazo solicitar:la_solicitud tramitar:la_tramitación gestionar:la_gestión
modificar:la_modificación actualizar:la_actualización editar:la_edición crear:la_creación
generar:la_generación preparar:la_preparación planificar:la_planificación cobrar:el_cobro pagar:el_pago
facturar:la_facturación liquidar:la_liquidación reembolsar:el_reembolso reservar:la_reserva
entregar:la_entrega ajustar:el_ajuste configurar:la_configuración activar:la_activación
priorizar:la_priorización escalar:el_escalado detectar:la_detección identificar:la_identificación
conservar:la_conservación capturar:la_captura digitalizar:la_digitalización recuperar:la_recuperación
migrar:la_migración vincular:la_vinculación enviar:el_envío recibir:la_recepción emitir:la_emisión
abrir:la_apertura cerrar:el_cierre aprobar:la_aprobación renovar:la_renovación devolver:la_devolución
medir:la_medición repartir:el_reparto distribuir:la_distribución evaluar:la_evaluación
comprobar:la_comprobación corregir:la_corrección mostrar:la_presentación ver:la_visualización
suspender:la_suspensión retirar:la_retirada presentar:la_presentación restaurar:la_restauración
""".replace("\n", " ").split()
)


@cache
def conjugate(infinitive: str) -> tuple[str, str] | None:
    """(present indicative, present subjunctive), third person singular; None when the verb is unknown."""
    if infinitive in _IRREGULAR:
        return _IRREGULAR[infinitive]
    stem, ending = infinitive[:-2], infinitive[-2:]
    if ending == "ar" and infinitive not in _NOT_VERBS and len(stem) > 1:
        for letters, softened in (("gu", "gü"), ("c", "qu"), ("g", "gu"), ("z", "c")):
            if stem.endswith(letters):
                return stem + "a", stem[: -len(letters)] + softened + "e"
        return stem + "a", stem + "e"
    if infinitive in _REGULAR_ER_IR:
        return stem + "e", stem + "a"
    return None


_SECOND_VERB = re.compile(r"(?<=[, ])(y|e|o|u) (\w+[aei]r)\b|, (\w+[aei]r)\b(?=,? (?:y|e|o|u|el|la|los|las|un|una) )")
_HARD_SECOND = re.compile(
    r" (?:y|e|o|u) (?:(?:no|luego|después|así) \w+[aei]r\b|\w+[aei]r(?:le|lo|la|los|las|les|se|me)\b)"
)


def verb_forms(phrase: str) -> tuple[str, str] | None:
    """The infinitive phrase in the present and in the subjunctive, coordinated verbs included, or None."""
    head, _, rest = phrase.partition(" ")
    forms = conjugate(head) if re.fullmatch(r"\w+[aei]r", head) else None
    if forms is None or _HARD_SECOND.search(phrase):
        return None
    out = []
    for mood in (0, 1):
        known = True

        def replaced(match: re.Match[str], mood: int = mood) -> str:
            nonlocal known
            verb = match[2] or match[3]
            if verb in _NOT_VERBS:
                return match[0]
            pair = conjugate(verb)
            if pair is None:
                known = False
                return match[0]
            return f"{match[1]} {pair[mood]}" if match[2] else f", {pair[mood]}"

        text = _SECOND_VERB.sub(replaced, rest)
        if not known:
            return None
        out.append(f"{forms[mood]} {text}".strip())
    return out[0], out[1]


def nominal(phrase: str) -> str | None:
    """`registrar la rotura con foto` as `el registro de la rotura con foto`, or None."""
    head, _, rest = phrase.partition(" ")
    if head not in _NOUN_OF or _SECOND_VERB.search(rest) or _HARD_SECOND.search(phrase):
        return None
    if not re.match(r"(el|la|los|las|un|una|cada|\{(obj|plural|un_obj|plural2)\}) ?", rest):
        return None
    return f"{_NOUN_OF[head].replace('_', ' ')} de {rest}"


_SUBJUNCTIVES: dict[str, str] = {}
for _verb in (*_REGULAR_AR, *_REGULAR_ER_IR, *_IRREGULAR):
    _pair = conjugate(_verb)
    if _pair and _verb not in {"tardar", "haber"}:
        _SUBJUNCTIVES[_pair[1]] = _pair[0]
        _SUBJUNCTIVES[_pair[1] + "n"] = {"hay": "hay"}.get(_pair[0], _pair[0] + "n")
_SUBJUNCTIVES |= {"sean": "son", "haya": "hay", "dé": "da", "den": "dan", "vaya": "va", "vayan": "van"}


def indicative(clause: str) -> str | None:
    """`que el listado cargue en 3 s` as `el listado carga en 3 s`; None where the verb is not found."""
    words = clause.removeprefix("que ").split(" ")
    if " que " in " ".join(words) or " y " in clause or " pero " in clause:
        return None  # a second verb would stay in the subjunctive
    for i, word in enumerate(words):
        bare = word.rstrip(",")
        if bare in _SUBJUNCTIVES and (i or word != "este"):
            words[i] = word.replace(bare, _SUBJUNCTIVES[bare])
            return " ".join(words)
    return None


def cap(text: str) -> str:
    """First letter in upper case, after an opening mark."""
    return text[:2].upper() + text[2:] if text[:1] in "¿¡" else text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    """Capitalised and closed by one period."""
    return cap(text) if text[-1:] in ".!?:" else cap(text) + "."


def join(items: Sequence[str]) -> str:
    """`a, b y c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " y " + items[-1]


_ONE = re.compile(
    r"(?<![\d.,:/-])1 "
    r"(minuto|segundo|hora|día|mes|año|semana|paso|toque|página|incidencia|caso|pregunta)e?s\b"
)


_TWO_PERIODS = re.compile(r"(?<!\.)\.\.(?!\.)")  # a company in S. A. that closes a sentence


def _singular(match: re.Match[str]) -> str:
    return f"1 {match[1]}"


def polish(text: str) -> str:
    """Contract `de el` and `a el`, and say `e` before the sound i."""
    text = _TWO_PERIODS.sub(".", _ONE.sub(_singular, text))
    text = text.replace(" de el ", " del ").replace(" a el ", " al ").replace("De el ", "Del ").replace("A el ", "Al ")
    return text.replace(" y i", " e i").replace(" y I", " e I").replace(" y hi", " e hi").replace(" e hie", " y hie")


def is_feminine(phrase: str) -> bool:
    """From the article; `el acta` and its like are feminine."""
    article, _, noun = phrase.partition(" ")
    if article == "el":
        return noun.split(" ")[0] in {
            "acta",
            "alta",
            "área",
            "agua",
            "aula",
            "arma",
            "alma",
            "hacha",
            "ancla",
            "ala",
            "aduana",
        }
    return article in {"la", "las", "una"}


def bare(phrase: str) -> str:
    """Without its article."""
    article, _, noun = phrase.partition(" ")
    return noun if article in {"el", "la", "los", "las"} else phrase


# ---------------------------------------------------------------- pools

NAMES = """
Marta Lucía Javier Andrés Sofía Elena Ramiro Ximena Camilo Valentina Tomás Ignacio Rocío Noelia Iker
Ainhoa Gonzalo Renata Emiliano Fernanda Mateo Catalina Diego Paula Úrsula Bruno Inés Álvaro Beatriz
Joaquín Pilar Héctor Natalia Rodrigo Gabriela Esteban Lorena Mauricio Carolina Sergio Daniela Facundo
Milagros Agustín Romina Nahuel Constanza Cristóbal Macarena Benjamín Yolanda Óscar Teresa Raúl Adriana
Julián Nuria Víctor Amparo Leandro Abril Maite Unai Jimena Efraín Araceli Wilson Yesenia Ulises Irene Saúl
Delia Fermín Berta Ariel Ivonne
""".split()
SURNAMES = """
Ortega Salcedo Ibáñez Quiroga Villalobos Zamora Echeverría Pardo Montoya Restrepo Cárdenas Lagos Riquelme
Fuentes Alarcón Benítez Ferrer Pons Vidal Soler Arana Etxeberria Goñi Mendoza Treviño Garza Luján Bermúdez
Ospina Zapata Uribe Giraldo Acosta Pereyra Bianchi Rossi Sosa Cabrera Núñez Peralta Godoy Sepúlveda
Valdivia Urrutia Huamán Quispe Paredes Vargas Solano Chaves Mora Carballo Rey Lago Souto Prado Crespo
Herrero Nieto Campos Rivas Duarte Tapia Olivares Barrios Escobar Maldonado Castaño Arias Roldán Santana
Trujillo Aguilar Cordero Palacios Navarro Serrano Bravo Gallardo Espinosa Marín Luna Cisneros Rangel
Medrano
""".split()
COUNTRIES = {
    "España": (
        (
            "Valencia",
            "Zaragoza",
            "Bilbao",
            "Sevilla",
            "Vigo",
            "Murcia",
            "Lleida",
            "Burgos",
            "Gijón",
            "Málaga",
            "Cáceres",
        ),
        "€",
    ),
    "México": (
        (
            "Monterrey",
            "Puebla",
            "Querétaro",
            "Mérida",
            "León",
            "Guadalajara",
            "Tijuana",
            "Oaxaca",
            "Saltillo",
        ),
        "pesos mexicanos",
    ),
    "Colombia": (
        ("Medellín", "Cali", "Bucaramanga", "Pereira", "Barranquilla", "Manizales", "Bogotá", "Pasto"),
        "millones de pesos",
    ),
    "Argentina": (("Rosario", "Córdoba", "Mendoza", "Salta", "Neuquén", "La Plata", "Tucumán"), "dólares"),
    "Chile": (
        ("Concepción", "Valparaíso", "Temuco", "Antofagasta", "Rancagua", "Santiago", "Puerto Montt"),
        "UF",
    ),
    "Perú": (("Arequipa", "Trujillo", "Cusco", "Piura", "Lima", "Chiclayo"), "soles"),
    "Uruguay": (("Montevideo", "Salto", "Paysandú", "Maldonado"), "dólares"),
    "Costa Rica": (("San José", "Alajuela", "Heredia", "Cartago"), "colones"),
    "Ecuador": (("Quito", "Guayaquil", "Cuenca", "Manta"), "dólares"),
}
MONTHS = "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre".split()
WEEKDAYS = "lunes martes miércoles jueves viernes".split()
FORMATS = "CSV XLSX PDF XML JSON Parquet EDIFACT GeoJSON HL7 UBL Facturae".split()
GENERAL_SYSTEMS = pool(
    """
SAP S/4HANA|SAP Business One|Oracle EBS|el AS/400|Salesforce|Dynamics 365|Odoo|PostgreSQL 15|Active
Directory|Keycloak|Power BI|Google Workspace|Twilio|el gestor documental|la centralita|el correo
corporativo|Jira|ServiceNow|un PLC de Siemens|el ERP contable|la pasarela de pagos|la intranet|Kafka|el
almacén de datos|Firebase|la nube privada|Snowflake|el lector de códigos|WhatsApp Business|el servidor
SFTP|Azure AD|la base de datos histórica|Microsoft Teams|Netsuite|Siebel|el portal del cliente|un servicio
SOAP antiguo|Zendesk|HubSpot|Grafana
"""
)
GENERAL_NORMS = pool(
    """
el RGPD|la LOPDGDD|la Ley 1581|la Ley 25.326|la Ley 21.719|ISO 27001|el Esquema Nacional de Seguridad|PCI
DSS|la norma EN 301 549|las WCAG 2.2|la Ley Federal de Protección de Datos|el reglamento eIDAS|SOC 2|ISO
9001|la directiva NIS2|la NOM-151
"""
)
FIELDS = pool(
    """
fecha|importe|turno|sede|estado|número de serie|prioridad|referencia|responsable|zona|tipo|código
postal|lote|motivo|centro de
coste|proveedor|cliente|antigüedad|temperatura|peso|idioma|moneda|canal|matrícula|ruta|franja horaria|nivel
de riesgo|color|talla|versión
"""
)
PROOFS = pool(
    """
foto|firma manuscrita|código QR|geolocalización|sello de tiempo|código de barras|comentario
obligatorio|fotografía y hora|nota de voz|huella|DNI escaneado|doble validación|motivo tasado
"""
)
CHANNELS = pool(
    """
correo|SMS|notificación push|WhatsApp|mensaje en pantalla|llamada automática|un mensaje en Teams|la bandeja
interna|Telegram|una señal luminosa
"""
)
DEVICES = pool(
    """
un móvil de gama baja|una tableta de 8 pulgadas|Chrome y Firefox|un lector con Android 9|un portátil sin
conexión|Safari en iPad|una pantalla táctil con guantes|una PDA industrial|un quiosco de 21 pulgadas|Edge en
Windows 10
"""
)
WHEN_DONE = pool(
    """
al cerrar el turno|cada noche|en el acto|al día siguiente antes de las 8:00|el primer día hábil del mes|cada
lunes|antes de la firma|al final de la jornada|sin esperar al cierre|en la misma pantalla
"""
)
PRODUCT_KINDS = pool(
    """
la aplicación móvil|el portal|el panel de control|la plataforma|el módulo|el servicio|la herramienta
interna|la web|el asistente|la nueva versión|el tablero|el sistema
"""
)
_ONSETS = "b c d f g l m n p r s t v z br cr dr fl gr pl tr ch ll qu j k x".split()
_VOWELS = "a e i o u a e o ia ue".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "z", "m"]
_TECH = """
webhook backend OAuth2 SAML JWT REST GraphQL MQTT OPC-UA Modbus LoRaWAN SFTP TLS1.3 Docker kubelet nginx
Redis cron gRPC protobuf IPv6 IMAP XSLT base64 SHA-256 AES-256 iframe endpoint payload token cookie
timeout rollback staging
""".split()

# ---------------------------------------------------------------- requirements

# Composed infinitive phrases; lexicon actions join them. Slots are explained in `Slots`.
ACTIONS = """
registrar {un_obj} con {prueba} en menos de {n_2_6} pasos
registrar la entrada y la salida de {plural} con {prueba}
consultar el historial de {obj} de los últimos {n_2_36} meses
consultar {plural} por {campo}, {campo2} y {campo3}
buscar {plural} por {campo} o por {campo2}
filtrar {plural} por {campo} y {campo2}
exportar {plural} a {fmt} {cuando}
exportar {plural} a {fmt} con {campo}, {campo2} y {campo3}
importar {plural} desde un fichero {fmt} de hasta {n_2_90} MB
asignar {un_obj} a {actor2} según {campo}
reasignar {plural} cuando falte {actor2}
aprobar {un_obj} desde el móvil con {prueba}
rechazar {un_obj} indicando el motivo y {campo}
anular {un_obj} antes de {n_2_48} horas sin coste
cancelar {plural} en bloque, hasta {n_10_90} a la vez
bloquear {obj} cuando {campo} no coincida con {sys}
validar {obj} contra {sys} antes de guardar
validar {campo} y {campo2} de {obj} con las reglas de {norm}
firmar {obj} con {prueba}
adjuntar hasta {n_2_12} archivos a {obj}
descargar {plural} en {fmt} por {campo}
imprimir {obj} con {campo}, {campo2} y código {codigo}
publicar {plural} en {sys} {cuando}
programar {un_obj} para una fecha y una {campo}
archivar {plural} con más de {n_2_10} años
borrar {plural} a los {n_30_365} días de su cierre
anonimizar {plural} pasados {n_6_60} meses
sincronizar {plural} con {sys} cada {n_5_60} minutos
sincronizar {campo} y {campo2} de {obj} con {sys}
conciliar {plural} con los movimientos de {sys}
comparar {plural} de dos periodos por {campo}
clasificar {plural} por {campo} con ayuda de {sys}
calcular {campo} de {obj} con {n_2_4} decimales
priorizar {plural} según {campo} y {campo2}
escalar {un_obj} a {actor2} si pasan {n_2_48} horas
avisar por {canal} a {actor2} cuando {obj} cambie de estado
avisar a {actor2} si {campo} supera el {p_5_40} %
recibir por {canal} un resumen de {plural} {cuando}
recibir una alerta por {canal} si {obj} lleva {n_2_72} horas sin moverse
enviar {obj} a {actor2} por {canal}
enviar a {sys} cada {obj_n} con su {campo}
escanear {obj} con la cámara y leer {campo}
localizar {obj} en un plano por {campo}
ver en un solo tablero {plural} y {plural2}
ver {campo} y {campo2} de {plural} sin cambiar de pantalla
comparar {obj} con la versión anterior y ver las diferencias
corregir {campo} de {obj} con la aprobación de {actor2}
duplicar {un_obj} y cambiar {campo}
dividir {un_obj} en {n_2_6} partes con su propio {campo}
reservar {un_obj} con {n_1_30} días de antelación
liberar {plural} que nadie confirme en {n_10_90} minutos
cobrar {un_obj} con tarjeta y con {pseudo}
reembolsar {un_obj} en {n_2_10} días
recuperar {un_obj} borrado por error durante {n_5_60} días
configurar los umbrales de {campo} sin ayuda de sistemas
configurar qué campos de {obj} ve {actor2}
generar el informe de {plural} por {campo} en {fmt}
generar un código {codigo} único para cada {obj_n}
vincular {obj} con su expediente en {sys}
migrar {plural} de los últimos {n_2_12} años desde {sys}
cerrar {un_obj} solo con {prueba}
reabrir {un_obj} con permiso de {actor2}
simular el efecto de un cambio de {campo} en {plural}
traducir {obj} al inglés y al {idioma}
etiquetar {plural} con el código {codigo}
trabajar con {plural} sin conexión hasta {n_2_12} horas
medir {campo} de {obj} cada {n_1_30} minutos
delegar la revisión de {plural} en {actor2} durante las vacaciones
confirmar la recepción de {obj} con {prueba}
solicitar {un_obj} con un formulario de {n_3_9} campos
completar {un_obj} por voz en menos de {n_1_4} minutos
retomar {un_obj} a medias desde otro dispositivo
comentar {obj} y mencionar a {actor2}
votar {plural} y ver el resultado por {campo}
auditar los cambios de {obj} por usuario y {campo}
""".strip().splitlines()

# kind | indicative clause || asks (|) || answers (|)
_ARCHETYPES = """
rendimiento || el listado de {plural} carga en menos de {n_1_5} segundos ||
que el listado de {plural} cargue en menos de {n_1_5} segundos | el listado de {plural} tarda hoy una
eternidad: menos de {n_1_5} segundos | listado de {plural} en < {n_1_5} s | la carga de {plural} no puede
pasar de {n_1_5} segundos ||
el listado de {plural} carga en menos de {n_1_5} segundos (percentil {p_90_99}) con {n_20_900} usuarios a la
vez | con {n_2_90}.000 registros de prueba, el listado de {plural} aparece completo en menos de {n_1_5}
segundos | dado un catálogo de {n_2_90}.000 registros, cuando {actor} abre el listado de {plural}, entonces
lo ve en menos de {n_1_5} segundos

rendimiento || {plural} se procesan a razón de {n_200_9000} por hora ||
procesar {n_200_9000} {plural_n} por hora | soportar un pico de {n_200_9000} {plural_n} por hora | que se
procesen {n_200_9000} {plural_n} a la hora sin colas | pico previsto: {n_200_9000} {plural_n}/hora ||
el servicio procesa {n_200_9000} {plural_n} por hora durante {n_2_8} horas seguidas con una tasa de error
inferior al 0,{n_1_9} % | una prueba de carga con {n_200_9000} {plural_n} por hora termina sin colas y con
la CPU por debajo del {p_55_85} % | en el pico de {n_200_9000} {plural_n} por hora ninguna petición espera
más de {n_2_9} segundos

rendimiento || la búsqueda de {obj} responde en {n_150_900} ms ||
latencia p95 < {n_150_900} ms al buscar {un_obj} | la búsqueda de {obj} tiene que responder en {n_150_900}
ms | que buscar {un_obj} responda en {n_150_900} ms como mucho | p95 de búsqueda de {obj_n}: {n_150_900} ms
||
la búsqueda de {obj} responde en menos de {n_150_900} ms (percentil 95), medido durante {n_3_30} días en
producción | al buscar {un_obj}, la latencia p95 queda por debajo de {n_150_900} ms con {n_20_800} sesiones
simultáneas | el {p_95_99} % de las búsquedas de {obj_n} devuelve resultados en menos de {n_150_900} ms

disponibilidad || el servicio está disponible el 99,{n_1_9} % del mes ||
disponibilidad del 99,{n_1_9} % mensual | que el servicio no se caiga: 99,{n_1_9} % de disponibilidad | el
sistema debe estar disponible el 99,{n_1_9} % del mes | SLA de 99,{n_1_9} % ||
la disponibilidad mensual es del 99,{n_1_9} % como mínimo, medida desde {n_2_5} puntos externos cada minuto
| el informe mensual acredita una disponibilidad del 99,{n_1_9} %, sin contar {n_1_4} horas de mantenimiento
anunciado | con una disponibilidad mensual del 99,{n_1_9} %, cada caída se comunica a {actor} en {n_5_30}
minutos

disponibilidad || {product} funciona sin conexión durante {n_2_12} horas ||
que {product} funcione sin conexión {n_2_12} horas | modo sin conexión de {n_2_12} horas para {actor} | si
no hay cobertura, seguir trabajando {n_2_12} horas | sin red se tiene que poder trabajar {n_2_12} horas ||
{product} funciona sin conexión durante {n_2_12} horas y sincroniza en menos de {n_1_9} minutos al recuperar
la cobertura | tras {n_2_12} horas sin conexión, los {n_20_300} registros hechos por {actor} se sincronizan
sin duplicados | con el modo avión activado {n_2_12} horas, {actor} sigue trabajando y no pierde ningún
registro

seguridad || las contraseñas nunca se guardan en claro ||
nada de contraseñas en claro | contraseñas cifradas, por favor | que ninguna contraseña se guarde en claro |
prohibido guardar contraseñas en claro ||
ninguna contraseña se guarda en claro: se almacenan con {hash} y una auditoría de la base de datos lo
confirma | el análisis de la base de datos y de los registros no encuentra ninguna contraseña en claro en
{n_2_9} revisiones | las contraseñas se guardan con {hash}, y {n_3_10} intentos fallidos bloquean la cuenta
{n_5_60} minutos

seguridad || el acceso exige doble factor ||
doble factor para {actor} | que {actor} entre con doble factor | autenticación en dos pasos para entrar |
acceso con segundo factor obligatorio fuera de la oficina ||
el acceso de {actor} exige doble factor y la sesión caduca a los {n_5_60} minutos sin actividad | cuando
{actor} entra sin el segundo factor, el acceso se deniega y queda registrado en la bitácora | el doble
factor se pide en el 100 % de los accesos desde fuera de la red corporativa

seguridad || cada acceso a {obj} queda en una bitácora inalterable ||
dejar bitácora de cada acceso a {obj} | trazabilidad completa: quién vio {obj} y cuándo | que quede rastro
de quién abre {obj} | registro inalterable de accesos a {plural} ||
cada acceso a {obj} queda en una bitácora inalterable con usuario, fecha y hora, conservada {n_1_10} años |
la bitácora guarda quién abre {obj}, cuándo y desde qué dispositivo, y se consulta en menos de {n_2_9}
segundos | cuando alguien abre {obj}, la bitácora lo anota en menos de {n_1_9} segundos y {actor} no puede
borrarlo

seguridad || {actor} solo ve {plural} de su sede ||
que {actor} vea solo {plural} de su sede | permisos por sede: cada cual sus {plural_n} | {actor} no debe ver
{plural} de otra sede | acceso por perfiles a {plural} ||
{actor} ve únicamente {plural} de su sede; una prueba con {n_3_12} perfiles no encuentra fugas | si {actor}
intenta abrir {plural} de otra sede, recibe un error 403 y queda registrado | los permisos por sede de
{plural} se prueban con {n_3_12} perfiles y {n_20_90} casos

cifrado || {plural} se cifran en reposo y en tránsito ||
cifrado de {plural} en reposo y en tránsito | que {plural} viajen y se guarden cifrad{pos} | cifrar {plural}
con AES-256 | datos de {plural_n} cifrados de punta a punta ||
{plural} se cifran con AES-256 en reposo y TLS 1.3 en tránsito, comprobado por un escaneo {cada} | el
escaneo de seguridad no encuentra {plural_n} sin cifrar ni en disco ni en tránsito | las claves que cifran
{plural} rotan cada {n_30_180} días y solo {actor} las custodia

accesibilidad || {product} cumple WCAG 2.{n_1_2} AA ||
cumplir WCAG 2.{n_1_2} AA | que se pueda usar con lector de pantalla (WCAG 2.{n_1_2} AA) | accesibilidad AA
según WCAG 2.{n_1_2} | {product} tiene que ser accesible, nivel AA de WCAG 2.{n_1_2} ||
{product} cumple WCAG 2.{n_1_2} AA: cero errores graves en la auditoría y {n_5_20} tareas hechas con lector
de pantalla | una auditoría externa de {n_10_60} pantallas confirma el nivel AA de WCAG 2.{n_1_2} antes de
publicar | con lector de pantalla y teclado, {n_3_9} personas completan el {p_90_99} % de las tareas,
conforme a WCAG 2.{n_1_2} AA

accesibilidad || los botones se pulsan con guantes en {device} ||
botones grandes: se usa con guantes en {device} | que se pueda usar con guantes en {device} | interfaz
legible al sol y manejable en {device} | debe verse bien en {device} ||
en {device}, los botones miden al menos {n_9_15} mm y {actor} acierta a la primera en el {p_90_99} % de los
toques | {n_5_12} personas prueban la interfaz en {device} con guantes y terminan la tarea en menos de
{n_1_4} minutos | la interfaz se prueba en {device} con contraste mínimo de 4,5:1 y letra de {n_16_22}
puntos

accesibilidad || la interfaz está en español y en {idioma} ||
interfaz en español y en {idioma} | que se pueda cambiar entre español y {idioma} | textos también en
{idioma} | idiomas: español y {idioma} ||
la interfaz se cambia de español a {idioma} en un toque, sin textos a medias en las {n_10_60} pantallas | el
100 % de los textos existe en español y en {idioma}, revisados por una persona nativa | cuando {actor} elige
{idioma}, todas las pantallas y los correos cambian en menos de {n_1_3} segundos

integración || {plural} se sincronizan con {sys} cada {n_5_60} minutos ||
integración con {sys}: {plural} cada {n_5_60} minutos | que {plural} lleguen sin intervención a {sys} cada
{n_5_60} minutos | hay que conectar con {sys} ({plural}, cada {n_5_60} min) | el sistema debe sincronizar
{plural} con {sys} cada {n_5_60} minutos ||
{plural} se sincronizan con {sys} cada {n_5_60} minutos, y un fallo se reintenta {n_2_5} veces antes de
avisar a {actor} | cuando cambia {un_obj}, {sys} lo recibe en menos de {n_5_60} minutos y la diferencia
diaria es cero | la conciliación diaria entre {plural} y {sys} no deja ninguna diferencia durante {n_5_30}
días

integración || {product} consume la API de {sys} ||
usar la API de {sys} y no tocar su base de datos | consumir la API de {sys} | integrarse con {sys} sin
modificarlo | conexión con {sys} por API REST ||
{product} consume la API de {sys} con un máximo de {n_20_300} llamadas por minuto y sin modificar su base de
datos | si {sys} no responde en {n_2_20} segundos, la petición se encola y se reintenta cada {n_1_15}
minutos | el {p_98_99} % de las llamadas a la API de {sys} termina bien en una semana de pruebas

integración || el inicio de sesión único usa {sys} ||
inicio de sesión único con {sys} | que se entre con el usuario de {sys} | SSO contra {sys} | nada de otra
contraseña más: entrar con {sys} ||
{actor} entra con el usuario de {sys} mediante inicio de sesión único, sin otra contraseña, en menos de
{n_2_6} segundos | el inicio de sesión único con {sys} funciona en el {p_98_99} % de los accesos de la
primera semana | al darse de baja en {sys}, una cuenta pierde el acceso en menos de {n_5_60} minutos

legal || {product} cumple {norm} ||
cumplir {norm} | que todo cumpla {norm} | conformidad con {norm} | tiene que pasar la auditoría de {norm} ||
{product} cumple {norm}: el área legal revisa los {n_8_40} controles y firma el acta antes de publicar | la
auditoría de {norm} termina sin ninguna no conformidad grave y con menos de {n_2_6} leves | el expediente de
cumplimiento de {norm} contiene los {n_8_40} controles con su evidencia y su responsable

legal || los datos personales se borran a petición en {n_5_30} días ||
derecho de supresión: borrar los datos en {n_5_30} días | que se borren los datos personales en {n_5_30}
días si lo piden | atender las solicitudes de borrado en {n_5_30} días según {norm} | borrado de datos
personales a petición ||
una solicitud de borrado de datos personales se cumple en {n_5_30} días como máximo y genera un justificante
conforme a {norm} | el 100 % de las solicitudes de borrado se atiende en {n_5_30} días, y {actor} ve cuántas
quedan abiertas | pasados {n_5_30} días desde la petición, ninguna tabla conserva datos personales de quien
la hizo

legal || {plural} se conservan {n_2_10} años ||
conservar {plural} {n_2_10} años por {norm} | que {plural} se guarden {n_2_10} años y luego se destruyan |
retención de {n_2_10} años para {plural} | guardar {plural} {n_2_10} años ||
{plural} se conservan {n_2_10} años, como pide {norm}, y se destruyen después con acta firmada por {actor} |
al cumplirse {n_2_10} años, {plural} se eliminan en un plazo de {n_5_30} días y queda constancia | {plural}
de hace {n_2_10} años se recuperan en menos de {n_5_60} segundos

legal || el consentimiento de cada persona queda guardado ||
pedir consentimiento antes de guardar datos | que se guarde el consentimiento con fecha | consentimiento
explícito según {norm} | sin consentimiento no se envía nada por {canal} ||
el consentimiento de cada persona queda guardado con fecha, texto mostrado y versión, y se retira en {n_1_3}
toques | sin consentimiento guardado no sale ningún mensaje por {canal}; {n_50_500} casos de prueba lo
confirman | cuando alguien retira su consentimiento, los envíos por {canal} paran en menos de {n_5_60}
minutos

operación || hay copia de seguridad de {plural} cada {n_1_24} horas ||
copia de seguridad de {plural} cada {n_1_24} horas | backup cada {n_1_24} h, y que se pruebe la restauración
| respaldo de {plural} cada {n_1_24} horas | que haya copia de {plural} cada {n_1_24} horas fuera del
edificio ||
la copia de seguridad de {plural} se hace cada {n_1_24} horas y se restaura completa en menos de {n_1_6}
horas | un ensayo {cada} restaura la copia de {plural} y comprueba que no falta ningún registro | si la
copia de {plural} falla {n_2_3} veces seguidas, {actor} recibe aviso por {canal}

operación || se avisa por {canal} cuando {sys} deja de responder ||
avisar por {canal} si {sys} se cae | alerta por {canal} en cuanto {sys} deje de responder | que {actor} se
entere por {canal} si {sys} falla | monitorización de {sys} con avisos por {canal} ||
si {sys} deja de responder {n_1_10} minutos, {actor} recibe un aviso por {canal} en menos de {n_30_90}
segundos | un corte simulado de {sys} genera un solo aviso por {canal}, con hora, causa probable y
responsable | el {p_95_99} % de las caídas de {sys} se avisa por {canal} antes de {n_2_9} minutos

operación || una versión nueva se despliega sin parar el servicio ||
desplegar sin parar el servicio | que las actualizaciones no corten la operación | ventana de mantenimiento
solo de {n_1_4}:00 a {n_5_6}:00 | despliegues sin corte y con marcha atrás ||
una versión nueva se despliega sin parar el servicio y se revierte en menos de {n_5_30} minutos si sube la
tasa de error | durante {n_3_9} despliegues de ensayo no se corta ninguna sesión de {actor} | el despliegue
se hace de {n_1_4}:00 a {n_5_6}:00 y {actor} recibe el aviso con {n_24_72} horas

operación || el manual y la formación cubren {n_10_90} personas ||
formación para {n_10_90} personas | que haya un manual corto y {n_2_6} sesiones de formación | capacitar a
{n_10_90} usuarios antes del arranque | manual de una página para {actor} ||
{n_10_90} personas terminan la formación antes del arranque y aprueban una prueba de {n_8_20} preguntas | el
manual de {actor} cabe en {n_1_4} páginas y resuelve las {n_5_20} dudas más frecuentes | tras la formación,
{actor} completa la tarea sin ayuda en el {p_85_98} % de los intentos

datos || {plural} históric{pos} de {n_2_12} años se migran desde {sys} ||
migrar {n_2_12} años de {plural} desde {sys} | que no se pierda nada al migrar {plural} desde {sys} | traer
{plural} de {sys}, {n_2_12} años hacia atrás | carga inicial con {n_2_12} años de {plural_n} de {sys} ||
los {n_2_12} años de {plural} se migran desde {sys} con un error inferior al 0,{n_1_9} %, y {actor} firma el
recuento | tras la migración desde {sys}, un muestreo de {n_100_900} {plural_n} coincide campo a campo con
el original | la migración de {plural} desde {sys} se ensaya {n_2_3} veces y la definitiva dura menos de
{n_4_20} horas

datos || no hay duplicados de {obj} ||
nada de duplicados de {obj_n} | que no se repita {obj} con igual {campo} | evitar duplicados: {campo} único
para {obj} | detectar duplicados de {obj} por {campo} ||
dos altas de {obj} con igual {campo} se detectan al guardar, y {actor} decide cuál queda | el control de
{campo} deja menos de {n_1_5} duplicados de {obj_n} por cada {n_5_20}.000 registros | si {campo} ya existe,
{obj} no se guarda y se muestra el registro original en menos de {n_1_3} segundos

datos || {campo} y {campo2} son obligatorios en {obj} ||
{campo} y {campo2} obligatorios en {obj} | que no se pueda guardar {obj} sin {campo} ni {campo2} | campos
obligatorios de {obj}: {campo} y {campo2} | {obj}: sin {campo} y {campo2} no se guarda ||
{obj} no se guarda sin {campo} y {campo2}; el mensaje dice cuál falta y el cursor va a ese campo | el 100 %
de {plural} posteriores al arranque lleva {campo} y {campo2} | cuando {actor} guarda {obj} sin {campo}, ve
un aviso junto al campo en menos de {n_1_2} segundos

informes || cada {dia} sale un informe de {metric} por {campo} ||
informe de {metric} cada {dia} por {canal} | que la dirección reciba {metric} cada {dia} | cuadro de mando
con {metric} por {campo} | reporte semanal: {metric}, desglosado por {campo} ||
cada {dia} a las {n_6_9}:00, {actor} recibe por {canal} el informe de {metric} desglosado por {campo} | el
informe de {metric} por {campo} coincide con los datos de origen con una desviación menor del {n_1_3} % | el
cuadro de mando muestra {metric} por {campo} con datos de hace menos de {n_5_60} minutos

informes || el indicador de {metric} se ve en el panel ||
ver {metric} en tiempo real | que {actor} vea el indicador de {metric} sin pedirlo | panel con {metric} y
tendencia de {n_3_12} meses | indicador de {metric} a la vista ||
el panel muestra el indicador de {metric} con un retraso máximo de {n_1_15} minutos y la tendencia de
{n_3_12} meses | {actor} ve el indicador de {metric} en la primera pantalla, sin más de {n_1_3} toques | el
indicador de {metric} se recalcula cada {n_5_60} minutos y su fórmula se puede consultar

usabilidad || {actor} termina la tarea en {n_2_6} pasos ||
que sea fácil: {n_2_6} pasos como mucho | que {actor} lo haga en {n_2_6} pasos | menos clics: {n_2_6} pasos
para {un_obj} | que sea rápido de usar para {actor} ||
{actor} termina el alta de {un_obj} en {n_2_6} pasos y menos de {n_30_120} segundos, medido con {n_5_12}
personas | en la prueba con {n_5_12} personas, el {p_85_98} % completa {un_obj} en {n_2_6} pasos sin ayuda |
el recorrido de {actor} tiene {n_2_6} pasos como máximo y obtiene {n_70_90} puntos en la escala SUS

usabilidad || los mensajes de error dicen qué hacer ||
mensajes de error claros | que los errores se entiendan | que el error diga qué hacer, no un código {codigo}
| nada de códigos como {codigo} en pantalla ||
cada mensaje de error dice qué pasó y qué hacer, en menos de {n_12_30} palabras, y guarda el código {codigo}
solo en el registro | {n_5_12} usuarios entienden los {n_10_40} mensajes de error más comunes sin ayuda |
ningún mensaje muestra el código {codigo}; en su lugar hay una frase y un botón de reintento

coste || el coste mensual no supera {n_200_9000} {moneda} ||
que no cueste más de {n_200_9000} {moneda} al mes | coste de nube < {n_200_9000} {moneda}/mes | tope de
gasto: {n_200_9000} {moneda} mensuales | mantenimiento por debajo de {n_200_9000} {moneda} al mes ||
el coste mensual no supera {n_200_9000} {moneda}, y un aviso salta al llegar al {p_70_90} % | la factura de
{n_2_4} meses seguidos queda por debajo de {n_200_9000} {moneda} | si el gasto llega al {p_70_90} % de
{n_200_9000} {moneda}, {actor} recibe el desglose por {canal}

plazo || la versión está en producción antes del {fecha} ||
todo en producción antes del {fecha} | tiene que salir antes del {fecha}, sin falta | fecha límite: {fecha}
| arranque el {fecha} en {ciudad} ||
la versión está en producción antes del {fecha}, con {n_2_4} semanas de piloto en {ciudad} | el {fecha} el
servicio está abierto al 100 % de los usuarios de {ciudad}, con el plan de marcha atrás probado | antes del
{fecha}, {actor} firma la aceptación de las {n_8_40} pruebas

escala || el servicio admite {n_50_900} usuarios a la vez ||
{n_50_900} usuarios concurrentes | que aguante {n_50_900} usuarios a la vez | soportar {n_50_900} sesiones
simultáneas | escalar hasta {n_50_900} usuarios simultáneos ||
con {n_50_900} usuarios a la vez, el tiempo de respuesta no pasa de {n_1_4} segundos durante {n_1_4} horas |
la prueba con {n_50_900} usuarios simultáneos termina con menos del {n_1_2} % de errores | {n_50_900}
sesiones simultáneas trabajan sobre {plural} sin bloqueos durante {n_1_8} horas

control || {actor} aprueba {obj} si supera {n_200_9000} {moneda} ||
doble aprobación si {obj} pasa de {n_200_9000} {moneda} | que {actor} apruebe {obj} por encima de
{n_200_9000} {moneda} | límite de {n_200_9000} {moneda} sin visto bueno de {actor} | por encima de
{n_200_9000} {moneda} aprueba {actor} ||
cuando {obj} supera {n_200_9000} {moneda}, queda en espera hasta que {actor} lo apruebe, con un plazo de
{n_4_48} horas | ningún caso de más de {n_200_9000} {moneda} avanza sin la aprobación de {actor}, registrada
con fecha y hora | si {actor} no aprueba en {n_4_48} horas lo que pasa de {n_200_9000} {moneda}, el caso
sube un nivel

nombres || cada {obj_n} lleva un código {pseudo_cap}-AAAA-NNNN ||
código {pseudo_cap}-AAAA-NNNN para cada {obj_n} | numerar {plural} con el prefijo {pseudo_cap} | que cada
{obj_n} lleve prefijo {pseudo_cap} | prefijo {pseudo_cap} en {plural} ||
cada {obj_n} recibe un código con el prefijo {pseudo_cap}, único durante {n_2_10} años y visible en la
primera línea | el prefijo {pseudo_cap} aparece en el 100 % de {plural} y un código repetido se rechaza | al
crear {un_obj}, el sistema asigna el código {pseudo_cap} en menos de {n_1_2} segundos

nombres || el módulo {pseudo_cap} habla con {sys} por {tech} ||
módulo {pseudo_cap} conectado a {sys} por {tech} | que {pseudo_cap} hable con {sys} usando {tech} | usar
{tech} entre {pseudo_cap} y {sys} | {pseudo_cap} ↔ {sys}: {tech} ||
el módulo {pseudo_cap} intercambia datos con {sys} por {tech} en menos de {n_100_900} ms y reintenta {n_2_5}
veces | una prueba de {n_1_9}.000 mensajes por {tech} entre {pseudo_cap} y {sys} termina sin pérdidas | si
{tech} falla, {pseudo_cap} guarda {n_50_900} mensajes y los entrega a {sys} al volver

mantenimiento || el código tiene un {p_70_90} % de cobertura de pruebas ||
cobertura de pruebas del {p_70_90} % | que el código quede probado al {p_70_90} % | pruebas automáticas,
{p_70_90} % de cobertura como mínimo | documentación técnica y {p_70_90} % de pruebas ||
la integración continua exige un {p_70_90} % de cobertura de pruebas y falla por debajo de esa cifra | cada
entrega conserva un {p_70_90} % de cobertura de pruebas y cero defectos graves abiertos | el informe de
cobertura de pruebas marca {p_70_90} % o más en las {n_2_9} últimas versiones
"""


@dataclass(frozen=True, slots=True)
class Archetype:
    """The templates of one requirement; a form that does not exist is None."""

    kind: str
    asks: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    infinitive: str | None = None
    present: str | None = None
    subjunctive: str | None = None
    noun: str | None = None
    clause: str | None = None  # indicative, subject included
    wish: str | None = None  # "que ..." in the subjunctive
    has: frozenset[str] = field(default=frozenset())


def _numbered(text: str) -> str:
    """`{n:2-9}` becomes the slot `{n_2_9_0}`, a different one at each place."""
    count = iter(range(99))
    return re.sub(r"\{n:(\d+)-(\d+)\}", lambda m: f"{{n_{m[1]}_{m[2]}_{next(count)}}}", text)


def _from_action(text: str, kind: str = "funcional") -> Archetype:
    text = _numbered(text)
    forms = verb_forms(text)
    noun = nominal(text)
    has = {"inf", "ind", "que"} | ({"pres", "subj"} if forms else set()) | ({"noun"} if noun else set())
    return Archetype(
        kind, (), (), text, forms[0] if forms else None, forms[1] if forms else None, noun, has=frozenset(has)
    )


_KIND_WORDS = (
    ("seguridad", ("cifr", "contraseñ", "acceso", "factor", "bitácora", "permiso", "sesión")),
    ("accesibilidad", ("wcag", "lector de pantalla", "accesib", "contraste", "guantes", "letra")),
    ("rendimiento", ("segundo", " ms", "latencia", "por minuto", "concurrent", "simultáne", "a la vez")),
    ("legal", ("ley", "rgpd", "norma", "legal", "consentimiento", "conservar", "nom-", "iso ")),
    ("integración", ("integr", "sincroniz", "api", "sap", "conect")),
    ("operación", ("copia", "respaldo", "disponib", "caíd", "turno", "despliegue")),
    ("informes", ("informe", "reporte", "export", "csv", "tablero", "panel")),
)


def guess_kind(text: str) -> str:
    """The kind of a requirement phrase, by its words."""
    low = text.lower()
    return next((kind for kind, words in _KIND_WORDS if any(w in low for w in words)), "funcional")


def _from_quality(text: str) -> Archetype:
    kind = guess_kind(text)
    text = _numbered(text)
    if re.match(r"\w+[aei]r ", text) and conjugate(text.split(" ")[0]):
        return _from_action(text, kind)
    if text.startswith("que "):
        clause = indicative(text)
        return Archetype(
            kind, (text,), wish=text, clause=clause,
            has=frozenset({"que", "ind"} if clause else {"que"}),
        )  # fmt: skip
    return Archetype(kind, (text,))


def _from_line(line: str) -> Archetype:
    kind, clause, asks, answers = (part.strip() for part in line.split(" || "))
    return Archetype(
        kind, tuple(a.strip() for a in asks.split(" | ")), tuple(a.strip() for a in answers.split(" | ")),
        clause=clause, has=frozenset({"ind"}),
    )  # fmt: skip


COMPOSED = tuple(_from_action(text) for text in ACTIONS)
ARCHETYPES = tuple(_from_line(" ".join(block.split())) for block in _ARCHETYPES.split("\n\n"))

# How a functional requirement is asked for, and how any requirement is answered. A frame is used where the
# requirement has every form that it names: inf, pres, subj, noun, ind (indicative clause), que (wish), text.
FUNCTIONAL_ASKS = pool(
    """
{inf}|{inf}|{inf}|{inf}|que {actor} pueda {inf}|que {actor} pueda {inf}|{actor} debe poder {inf}|el sistema
debe permitir {inf}|{actor} tiene que poder {inf}|se necesita {inf}|hace falta {inf}|poder {inf}|permitir a
{actor} {inf}|{noun}|{noun}, por favor|que {actor} {subj}|que se pueda {inf}|posibilidad de {inf}|opción de
{inf}|queremos {inf}|falta {inf}|{actor} quiere {inf}|{actor} pide {inf}|imprescindible {inf}|{actor}
({inf})|como mínimo, {inf}|{inf}, sin pasar por {sys}|{inf}; hoy no se puede|que {product} permita
{inf}|{product} deberá permitir a {actor} {inf}|se requiere {noun}|{actor} necesita {inf}|ojo: {inf}|también
{inf}|{inf} (lo usa {actor})|desde {product}, {inf}|{actor}: {inf}
"""
)
STATEMENTS = pool(
    """
{actor} puede {inf} en menos de {n_2_9} segundos, {tail}|{actor} puede {inf}, {tail}|{actor} {pres},
{tail}|{actor} {pres} {measure}|{actor} puede {inf} {measure}|es posible {inf} {measure}, {tail}|el sistema
permite a {actor} {inf} {measure}|el sistema permite {inf}, {tail}|{noun} se hace {measure}, {tail}|{noun}
funciona {measure}|{noun} está al alcance de {actor}, {tail}|desde {product}, {actor} puede {inf}
{measure}|{actor} logra {inf} sin ayuda en {n_2_6} pasos, {tail}|tras la entrega, {actor} {pres}
{measure}|{product} permite {inf}, {tail}|al {inf}, {actor} ve el resultado en menos de {n_2_9} segundos,
{tail}|al {inf}, {outcome}|{actor} completa la tarea de {inf} {measure}|en {n_20_90} pruebas seguidas,
{actor} {pres}, {tail}|{ind}, {tail}|{ind}, {tail}|{ind}, y {proof}|{ind}: {proof}|se comprueba que {ind},
{tail}|en todas las sedes, {ind}, {tail}|queda demostrado que {ind} en {n_3_30} días de piloto, {tail}|es
condición de entrega {que}, {tail}|se exige {que}; {proof}|no se acepta la versión sin {que}, {tail}|está
garantizado {que}, {tail}|{core}: {proof}|{core}, {tail}|{core}, {tail}|{core}; {proof}|«{text}» se da por
cumplido cuando {proof}|sobre «{text}»: {proof}
"""
)
WHENS = pool(
    """
cuando {actor} quiere {inf}, {outcome}|cuando {actor} {pres}, {outcome}|cuando {actor} {pres}, entonces
{outcome}|si {actor} intenta {inf} sin permiso, {refusal}|al {inf}, {outcome} y {outcome}|después de {inf},
{outcome}|dado que {actor} ha iniciado sesión, cuando elige {inf}, entonces {outcome}|dado un caso con
{campo} válido, cuando {actor} {pres}, entonces {outcome}|dado un entorno con {n_20_900} {plural_n}, cuando
{actor} {pres}, entonces {outcome}|cada vez que {actor} {pres}, {outcome}|una vez que {actor} termina de
{inf}, {outcome}|si falla {sys} al {inf}, {refusal}|en cuanto {actor} {pres}, {outcome}|cuando se revisa el
piloto, {ind}, {tail}|cuando hay {n_20_900} sesiones abiertas, {ind}, {tail}|dado un día de carga normal,
cuando se mide, entonces {ind}, {tail}|si se audita el servicio, {ind} y {proof}|cuando se prueba lo pedido
({text}), {outcome}|dado el requisito «{text}», cuando se prueba con {n_20_90} casos, entonces
{outcome}|cuando llega el momento de comprobar «{text}», {proof}
"""
)
TESTS = pool(
    """
comprobar que {actor} puede {inf} {measure}|comprobar que {ind} y que {proof}|verificar que {actor} {pres},
{tail}|ejecutar {n_5_90} veces la tarea de {inf} y anotar los fallos|pedir a {n_3_12} usuarios {inf} y medir
el tiempo, con un máximo de {n_20_90} segundos|intentar {inf} sin permiso y confirmar que {refusal}|probar a
{inf} con {n_20_900} {plural_n} y confirmar que {outcome}|medir durante {n_3_30} días si {ind}|repetir la
prueba de «{text}» en {n_2_6} sedes y confirmar que {proof}|revisar «{text}» con {actor}: {proof}|cortar
{sys} al {inf} y comprobar que {refusal}|validar {noun} con {n_20_90} casos reales, {tail}|preparar {n_5_60}
casos de «{text}» y exigir un {p_95_100} % de aciertos|confirmar ante {actor} que {ind}, {tail}
"""
)
PROMISES = pool(
    """
antes del {fecha}, {actor} podrá {inf}, {tail}|nos comprometemos a que {ind}, {tail}|entregaremos {noun} en
la semana {n_2_9}, {tail}|el equipo hará posible {inf} {measure}|la entrega {n_1_4} incluirá {noun},
{tail}|a partir de la entrega {n_1_4}, {ind}, y {proof}|se incluirá «{text}» en la entrega {n_1_4},
{tail}|desde el primer día, {actor} podrá {inf} {measure}|resolveremos «{text}» en {n_2_6} semanas,
{tail}|para el {fecha} estará en marcha {noun}, {tail}
"""
)
STORIES = pool(
    """
Como {actor_n}, quiero {inf}, para {benefit}.|Como {actor_n}, quiero {inf} {measure}, para {benefit}.|Como
{actor_n}, necesito {inf}, de modo que {gain}.|Siendo {actor_n}, me gustaría {inf}, para {benefit}.|Como
{actor_n}, pido esto: {core}, para {benefit}.|Como {actor_n}, quiero contar con {noun}, para {benefit}.
"""
)
SHORTS = pool(
    """
{noun}|{noun} ({measure})|{inf}|{inf} {measure}|{ind}|{core}|{core}, {tail}|{que}|{actor}: {inf}|{inf} en
{n_2_9} pasos
"""
)
QUESTIONS = pool(
    """
¿puede {actor} {inf} {measure}?|¿es posible {inf} sin ayuda?|¿está probado con {n_20_90} casos que
{ind}?|¿se ha comprobado «{text}»?|¿quién confirma que {ind}?|¿hay prueba escrita de «{text}» con fecha y
responsable?|¿{actor} consigue {inf} en menos de {n_1_5} minutos?|¿está ya en marcha {noun}?|¿se cumple
«{text}» en todas las sedes?
"""
)
REASONS = pool(
    """
sin ello, {problem}|hoy {problem}|{actor} lo pide porque {problem}|porque sin {noun} se pierden {n_2_9}
horas a la semana|lo exige {norm}|para que {actor} deje de depender de {sys}|se repite {n_5_40} veces al día
y cuesta {n_2_20} minutos cada vez|{actor} no puede {inf} y lo resuelve por teléfono|si no se puede {inf},
{problem}|es condición de {actor2} para firmar el arranque|es la queja más repetida de {actor}: {n_5_60}
casos al mes|afecta a {plural} y a {actor}|permite {benefit}|de ello depende {benefit}|quita a {actor} unos
{n_10_90} minutos al día|para {benefit}|ayuda a {benefit} y da tranquilidad a {actor}|la auditoría de {norm}
lo revisa cada año
"""
)
RELEASES = pool(
    """
ahora {actor} puede {inf} {measure}|ya se puede {inf}, {tail}|nuevo: {noun}, {tail}|mejora: {ind},
{tail}|desde esta versión, {ind}|{actor} {pres} sin salir de {product}, {tail}|incorporado lo pedido sobre
«{text}»: {proof}|se añade {noun}|novedad para {actor}: {inf} {measure}
"""
)
TAILS = pool(
    """
y queda registrado en la bitácora con fecha, hora y usuario|sin perder ningún registro en {n_50_900}
operaciones seguidas|con una tasa de error inferior al {n_1_5} %|con una tasa de error inferior al 0,{n_1_9}
%|en {p_95_99} de cada 100 casos|y {actor2} recibe un aviso por {canal}|medido en un piloto de {n_2_8}
semanas|comprobado con {n_20_200} casos de prueba|tanto en {device} como en el ordenador|con aviso por
{canal} si algo falla|sin volver a escribir {campo} ni {campo2}|y el cambio se ve en {sys} en menos de
{n_1_15} minutos|con un máximo de {n_2_9} pasos|y se puede deshacer durante {n_5_60} minutos|con
confirmación en pantalla en menos de {n_1_3} segundos|incluso con {n_20_500} usuarios a la vez|según los
permisos de su perfil|y el resultado se guarda con su {campo} y su {campo2}|con un justificante en {fmt}|sin
llamadas ni correos de por medio|medido con {n_5_15} usuarios reales|en {n_2_6} de cada {n_7_9} sedes antes
del {fecha}|con {prueba} como evidencia|sin intervención de sistemas|con mensajes que dicen qué falta y en
qué campo|y una prueba {cada} lo confirma|y se conserva {n_1_10} años|con un retraso máximo de {n_1_30}
minutos|y {actor2} firma el resultado|y se mide cada {dia} en el panel|desde el {fecha}|con una diferencia
inferior al {n_1_3} % frente a {sys}|con respuesta en menos de {n_200_900} ms (percentil {p_90_99})|y ningún
dato sale de {ciudad} ni de {pais}|y el histórico muestra los últimos {n_3_24} meses|de lunes a domingo y a
cualquier hora|salvo que falte {campo}, en cuyo caso se pide antes de seguir|con la aprobación de {actor2}
cuando supere {n_200_9000} {moneda}
"""
)
MEASURES = pool(
    """
en menos de {n_2_9} segundos|en menos de {n_10_90} segundos|en {n_2_6} pasos como máximo|en menos de {n_1_5}
minutos|sin salir de la pantalla|desde {device}|con {n_100_999} registros cargados|con éxito en {p_90_99} de
cada 100 intentos|a la primera en {n_7_9} de cada 10 casos|con {prueba}|sin errores en {n_20_200} pruebas|en
menos de {n_300_900} ms (percentil {p_90_99})|{cuando}|con un solo toque|dentro del mismo turno|con
{n_20_500} usuarios conectados|antes de {n_2_48} horas|sin duplicar el trabajo en {sys}
"""
)
OUTCOMES = pool(
    """
{sys} lo recibe en menos de {n_1_15} minutos|se guarda la fecha, la hora y el usuario|{actor2} recibe un
aviso por {canal} en {n_1_9} minutos|aparece una confirmación en menos de {n_1_3} segundos|el estado cambia
y se ve en todas las sedes|el sistema guarda {campo} y {campo2} sin pedirlos otra vez|se genera un
justificante en {fmt}|queda una línea en la bitácora que nadie puede borrar|el panel se actualiza en menos
de {n_5_60} segundos|el sistema responde en menos de {n_2_9} segundos|se descuenta de los pendientes y se
avisa a {actor2}|se muestra el resultado con su {campo}|el {p_95_99} % de los casos termina sin intervención
manual|se crea el código {codigo} y se muestra en pantalla|no hace falta volver a entrar en {sys}|se puede
deshacer durante {n_5_60} minutos|la operación queda asociada a {obj}|{actor2} puede comprobarlo el mismo
día
"""
)
REFUSALS = pool(
    """
se muestra un mensaje que dice qué falta|la operación se rechaza y queda registrada|nada se guarda a medias
y se reintenta {n_2_5} veces|se conserva el borrador durante {n_2_48} horas|{actor2} recibe un aviso por
{canal}|se ofrece un camino manual con {n_2_5} pasos|el sistema responde con un error claro en menos de
{n_1_4} segundos|los datos quedan como estaban|se encola y se envía al volver, en {n_1_30} minutos
"""
)
PROOFS_OF = pool(
    """
una prueba con {n_20_200} casos lo confirma|el piloto de {n_2_8} semanas en {ciudad} lo demuestra|{actor} lo
firma en el acta|el informe {cada} lo recoge|la medición de {n_3_30} días da al menos un {p_90_99} %|se
revisa cada {dia} con {actor}|el recuento de {sys} coincide al 100 %|quedan como evidencia {n_2_20} capturas
con fecha y hora|una auditoría externa no encuentra fallos graves|hay menos de {n_2_6} incidencias por cada
1.000 operaciones|{n_5_15} usuarios lo prueban sin ayuda y 4 de cada 5 lo logran|el panel muestra la
cifra cada {n_5_60} minutos
"""
)
BENEFITS = pool(
    """
no perder {n_1_4} horas al día con papeles|evitar errores con {plural}|responder a {actor2} sin llamar a
nadie|reducir un {p_10_60} % los retrasos|cumplir con {norm} sin trabajo extra|saber en todo momento cómo
está {obj}|cerrar el turno sin tareas pendientes|que {actor2} se entere a tiempo|dejar de usar hojas de
cálculo|detectar los fallos antes que el cliente|atender {n_5_60} casos más por semana|no repetir datos que
ya están en {sys}|demostrar lo hecho ante una auditoría|decidir con datos de hoy y no de la semana
pasada|bajar a la mitad las reclamaciones|ganar {n_10_50} minutos en cada turno
"""
)
GAINS = pool(
    """
se ahorren {n_1_9} horas por semana|{actor2} no tenga que preguntar|nadie copie datos de {sys} a mano|los
errores bajen un {p_10_60} %|todo quede listo antes de las {n_7_12}:00|la auditoría tenga su evidencia
"""
)

FRAMES: dict[str, tuple[str, ...]] = {
    "statement": STATEMENTS,
    "when": WHENS,
    "test": TESTS,
    "promise": PROMISES,
    "story": STORIES,
    "short": SHORTS,
    "question": QUESTIONS,
    "reason": REASONS,
    "release": RELEASES,
    "ask": FUNCTIONAL_ASKS,
}
_POOLS = {
    "tail": TAILS, "measure": MEASURES, "outcome": OUTCOMES, "refusal": REFUSALS, "proof": PROOFS_OF,
    "benefit": BENEFITS, "gain": GAINS,
}  # fmt: skip
_FORMS = frozenset({"inf", "pres", "subj", "noun", "ind", "que"})


def slots_of(frame: str) -> frozenset[str]:
    """Names of the slots of a frame."""
    return frozenset(name for _, name, _, _ in Formatter().parse(frame) if name)


@cache
def usable(form: str, has: frozenset[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The frames of a form that a requirement with these grammatical forms can fill: (specific, general)."""
    frames = [f for f in FRAMES[form] if slots_of(f) & _FORMS <= has]
    return tuple(f for f in frames if slots_of(f) & _FORMS), tuple(f for f in frames if not slots_of(f) & _FORMS)


# ---------------------------------------------------------------- worlds


@dataclass(frozen=True)
class Vocabulary:
    """An industry made ready: its phrases as slot templates and its requirements as archetypes."""

    industry: Industry
    facts: tuple[str, ...]
    problems: tuple[str, ...]
    actions: tuple[Archetype, ...]
    qualities: tuple[Archetype, ...]
    risks: tuple[str, ...]
    metrics: tuple[str, ...]


def prepare(industry: Industry) -> Vocabulary:
    """Conjugate and number an industry's phrases, once."""
    return Vocabulary(
        industry,
        tuple(map(_numbered, industry.facts)),
        tuple(_numbered(p.rstrip(".")) for p in industry.problems),
        tuple(_from_action(a, guess_kind(a)) for a in industry.actions),
        tuple(_from_quality(q.rstrip(".")) for q in industry.qualities),
        tuple(_numbered(r.rstrip(".")) for r in industry.risks),
        tuple(_numbered(m) for m in industry.metrics),
    )


_HASHES = ("bcrypt", "Argon2", "scrypt", "PBKDF2")
_EACH = ("mensual", "trimestral", "semestral", "anual")
_LANGUAGES = "inglés gallego catalán euskera quechua guaraní portugués francés mapudungun náhuatl aimara árabe".split()
_PREFIXES = """
Grupo Red Servicios Soluciones Casa Central Talleres Laboratorios Clínica Cooperativa Industrias Almacenes
Transportes Estudio Compañía Centro Agencia Distribuidora Instituto Operadora Fundación Comercial Bodegas
Viajes
""".split()
_ROOTS = """
Quetzal Alborada Tamarindo Aconcagua Miraflor Cierzo Levante Pampa Araucaria Ceiba Jacaranda Mezquite Ombú
Cóndor Lince Garza Colibrí Marisma Cantera Faro Ribera Umbral Brújula Sierra Olmo Nogal Andén Zafiro
Cobalto Ámbar Altiplano Mistral Tramontana Volcán Delta Estuario Meseta Horizonte Vértice Kilómetro Sabana
Páramo Manglar
""".split()
_SUFFIXES = [
    "",
    "",
    "",
    " del Norte",
    " del Sur",
    " Digital",
    " Unidos",
    " 24",
    " y Asociados",
    " S. L.",
    " S. A.",
    " del Valle",
]


class World:
    """One product of one company: everything that a document may mention, drawn once."""

    actors: list[str]
    objects: list[str]
    plurals: list[str]
    systems: list[str]
    norms: list[str]
    metrics: list[str]
    problems: list[str]
    product: str
    company: str
    country: str
    city: str
    currency: str
    date: str

    def __init__(self, rng: random.Random, vocabularies: Sequence[Vocabulary]) -> None:
        self.rng = rng
        self.random = rng.random
        pick, many = self.pick, self.many
        v = pick(vocabularies)
        self.vocabulary = v
        industry = v.industry
        self.industry = industry.name
        country = pick(_COUNTRY_NAMES)
        self.country = country
        self.city = pick(COUNTRIES[country][0])
        self.currency = COUNTRIES[country][1]
        chance = self.random()
        if chance < 0.4:
            self.company = pick(industry.companies)
        elif chance < 0.8:
            self.company = f"{pick(_PREFIXES)} {pick(_ROOTS)}{pick(_SUFFIXES)}"
        else:
            self.company = f"{pick(_PREFIXES)} {cap(self.pseudo())}{pick(_SUFFIXES)}"
        self.actors = many(industry.actors, 4)
        self.objects = many(industry.objects, 4)
        self.plurals = many(industry.plurals, 4)
        self.systems = [*many(industry.systems, 2), pick(GENERAL_SYSTEMS)]
        if self.random() < 0.3:
            self.systems[0] = (
                f"{pick(('el sistema', 'la aplicación', 'el módulo', 'la API de', 'el servicio'))} {cap(self.pseudo())}"
            )
        if self.random() < 0.2:
            noun = self.pseudo()
            self.objects[0] = f"{'la' if noun.endswith('a') else 'el'} {noun}"
        if self.random() < 0.15:
            self.actors[0] = (
                f"{pick(('la responsable de', 'el técnico de', 'la coordinadora de', 'el encargado de'))} "
                f"{self.pseudo()}"
            )
        self.norms = [pick(industry.norms), pick(GENERAL_NORMS)]
        self.metrics = many(v.metrics, 3)
        self.problems = [self.fill(p) for p in many(v.problems, 2)]
        self.product = f"{pick(PRODUCT_KINDS)} {cap(self.pseudo())}" if self.random() < 0.35 else pick(PRODUCT_KINDS)
        self.date = self.a_date()
        self.slots = Slots(self)

    def pick(self, pool: Sequence[T]) -> T:
        """One item, uniformly."""
        return pool[int(self.random() * len(pool))]

    def many(self, pool: Sequence[T], k: int) -> list[T]:
        """`k` different items (fewer when the pool is smaller)."""
        return self.rng.sample(pool, min(k, len(pool)))

    def number(self, low: int, high: int) -> int:
        """An integer of low..high."""
        return low + int(self.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def a_date(self) -> str:
        """A day of the year, sometimes with the year."""
        day = f"{self.number(1, 28)} de {self.pick(MONTHS)}"
        return f"{day} de {self.number(2024, 2028)}" if self.random() < 0.35 else day

    def person(self) -> str:
        """A name with one or two surnames."""
        name = f"{self.pick(NAMES)} {self.pick(SURNAMES)}"
        return f"{name} {self.pick(SURNAMES)}" if self.random() < 0.4 else name

    def pseudo(self) -> str:
        """A made-up word of two to four syllables."""
        pick = self.pick
        word = "".join(pick(_ONSETS) + pick(_VOWELS) + pick(_CODAS) for _ in range(self.number(2, 3)))
        return word + pick(("a", "o", "o", "a", "al", "ín", "or", "e"))

    def code(self) -> str:
        """A made-up code such as PED-48213."""
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
        head = "".join(self.pick(letters) for _ in range(self.number(1, 4)))
        return f"{head}{self.pick(('-', '-', '_', '', '/'))}{self.number(1, 10 ** self.number(2, 6))}"

    def fill(self, template: str) -> str:
        """Fill a template with slots of its own."""
        return template.format_map(Slots(self))

    def narrow(self, text: str) -> None:
        """Forget whatever this text does not name, so that answers about it name nothing else."""

        def named(pool: list[str]) -> list[str]:
            return [phrase for phrase in pool if bare(phrase) in text] or pool[:1]

        self.actors, self.systems, self.norms = named(self.actors), named(self.systems), named(self.norms)
        self.objects, self.plurals = named(self.objects), named(self.plurals)
        self.problems = named(self.problems)

    def needs(self, count: int) -> list[Need]:
        """Different requirements of every kind, mixed."""
        v = self.vocabulary
        fresh = self.many(v.actions, count) + self.many(v.qualities, count)
        fresh += self.many(COMPOSED, count) + self.many(ARCHETYPES, count)
        self.rng.shuffle(fresh)
        return [Need(self, archetype) for archetype in fresh[:count]]


_COUNTRY_NAMES = tuple(COUNTRIES)


class Slots(dict[str, str]):
    """Slot values of one requirement or sentence, drawn when first asked for and remembered.

    `n_2_9` is an integer of 2..9 (a further `_0`, `_1` tells two of them apart); `p_90_99` the same.
    Pools such as `tail` are drawn afresh each time.
    """

    __slots__ = ("archetype", "world")

    def __init__(self, world: World, archetype: Archetype | None = None) -> None:
        super().__init__()
        self.world = world
        self.archetype = archetype

    def __missing__(self, key: str) -> str:
        world = self.world
        if key in _POOLS:
            return world.pick(_POOLS[key]).format_map(self if world.random() < 0.3 else Slots(world))
        if key[:2] in ("n_", "p_"):
            parts = key.split("_")
            low, high = int(parts[1]), int(parts[2])
            value = str(low + int(world.random() * (high - low + 1)))
        else:
            value = _DRAW[key](self)
        self[key] = value
        return value


def _another(pool: Sequence[str], world: World, used: str) -> str:
    value = world.pick(pool)
    return world.pick(pool) if value == used else value


def _form(name: str) -> Callable[[Slots], str]:
    def draw(slots: Slots) -> str:
        template: str = getattr(slots.archetype, name)
        return template.format_map(slots)

    return draw


def _clause(slots: Slots) -> str:
    archetype = slots.archetype
    assert archetype
    if archetype.clause:
        return archetype.clause.format_map(slots)
    if archetype.present and slots.world.random() < 0.6:
        return f"{slots['actor']} {slots['pres']}"
    return f"{slots['actor']} puede {slots['inf']}"


def _wish(slots: Slots) -> str:
    archetype = slots.archetype
    assert archetype
    if archetype.wish:
        return archetype.wish.format_map(slots)
    if archetype.subjunctive and slots.world.random() < 0.6:
        return f"que {slots['actor']} {slots['subj']}"
    return f"que {slots['actor']} pueda {slots['inf']}"


def _indefinite(phrase: str) -> str:
    article, _, noun = phrase.partition(" ")
    return f"{'una' if article == 'la' else 'un'} {noun}" if article in {"el", "la"} else phrase


_DRAW: dict[str, Callable[[Slots], str]] = {
    "inf": _form("infinitive"), "pres": _form("present"), "subj": _form("subjunctive"), "noun": _form("noun"),
    "ind": _clause, "que": _wish,
    "core": lambda s: s["inf"] if s.archetype and s.archetype.infinitive else s["text"],
    "actor": lambda s: s.world.pick(s.world.actors),
    "actor2": lambda s: _another(s.world.actors, s.world, s.get("actor", "")),
    "actor_n": lambda s: bare(s["actor"]),
    "obj": lambda s: s.world.pick(s.world.objects),
    "obj_n": lambda s: bare(s["obj"]),
    "un_obj": lambda s: _indefinite(s["obj"]),
    "plural": lambda s: s.world.pick(s.world.plurals),
    "plural2": lambda s: _another(s.world.plurals, s.world, s.get("plural", "")),
    "plural_n": lambda s: bare(s["plural"]),
    "pos": lambda s: "as" if is_feminine(s["plural"]) else "os",
    "sys": lambda s: s.world.pick(s.world.systems),
    "norm": lambda s: s.world.pick(s.world.norms),
    "metric": lambda s: s.world.fill(s.world.pick(s.world.metrics)),
    "problem": lambda s: s.world.pick(s.world.problems),
    "risk": lambda s: s.world.fill(s.world.pick(s.world.vocabulary.risks)),
    "product": lambda s: s.world.product,
    "company": lambda s: s.world.company,
    "industry": lambda s: s.world.industry,
    "campo": lambda s: s.world.pick(FIELDS),
    "campo2": lambda s: _another(FIELDS, s.world, s.get("campo", "")),
    "campo3": lambda s: _another(FIELDS, s.world, s.get("campo2", "")),
    "fmt": lambda s: s.world.pick(FORMATS),
    "prueba": lambda s: s.world.pick(PROOFS),
    "canal": lambda s: s.world.pick(CHANNELS),
    "device": lambda s: s.world.pick(DEVICES),
    "cuando": lambda s: s.world.pick(WHEN_DONE),
    "fecha": lambda s: s.world.date if s.world.random() < 0.5 else s.world.a_date(),
    "dia": lambda s: s.world.pick(WEEKDAYS),
    "mes": lambda s: s.world.pick(MONTHS),
    "ciudad": lambda s: s.world.city,
    "pais": lambda s: s.world.country,
    "moneda": lambda s: s.world.currency,
    "cada": lambda s: s.world.pick(_EACH),
    "hash": lambda s: s.world.pick(_HASHES),
    "idioma": lambda s: s.world.pick(_LANGUAGES),
    "tech": lambda s: s.world.pick(_TECH),
    "pseudo": lambda s: s.world.pseudo(),
    "pseudo_cap": lambda s: cap(s.world.pseudo()),
    "codigo": lambda s: s.world.code(),
    "persona": lambda s: s.world.person(),
}  # fmt: skip


class Need:
    """One requirement: its slots are drawn once, so that every form of it names the same things."""

    __slots__ = ("archetype", "slots", "text", "world")

    def __init__(self, world: World, archetype: Archetype) -> None:
        self.world = world
        self.archetype = archetype
        self.slots = Slots(world, archetype)
        asks = archetype.asks or usable("ask", archetype.has)[0]
        self.text = world.pick(asks).format_map(self.slots)
        self.slots["text"] = self.text

    @property
    def kind(self) -> str:
        """`funcional`, `rendimiento`, `seguridad` ..."""
        return self.archetype.kind

    def ask(self) -> str:
        """The requirement as its author wrote it: capitalised or not, with or without a period."""
        return cap(self.text)

    def say(self, form: str) -> str:
        """The requirement again in another form (a key of FRAMES), as a sentence."""
        archetype, world = self.archetype, self.world
        if archetype.answers and form in ("statement", "when") and world.random() < 0.5:
            return sentence(world.pick(archetype.answers).format_map(self.slots))
        specific, general = usable(form, archetype.has)
        # The general frames quote the author's words: a requirement of any shape can fall back on them.
        quoting = 0.12 if archetype.infinitive else 0.4
        pool = general if general and (not specific or world.random() < quoting) else specific
        return sentence(world.pick(pool).format_map(self.slots))
