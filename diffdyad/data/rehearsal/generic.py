"""Sentences for the mouth's sake: rich in phonemes, empty of affect; English by grammar, others from short lists."""

from __future__ import annotations

import re

import numpy as np

from diffdyad.data.rehearsal.phrases import SLOTS, part

_NOUNS = (
    "baker", "pepper", "mountain", "fever", "thumb", "jungle", "village", "puppet", "breakfast", "cloud", "shoe",
    "treasure", "vapour", "measure", "lamp", "goose", "bottle", "mother", "fountain", "chimney", "oyster", "robin",
    "bishop", "van", "teacher", "judge", "beach", "youth", "tooth", "whisper", "captain", "bubble", "money",
    "feather", "ribbon", "falcon", "moon", "garage", "thought", "boy", "house", "cow", "kettle", "fire", "hour", "bear",
    "pier", "tour", "number", "problem", "shepherd", "violin", "jam", "umbrella", "beaver", "palm", "farm",
    "employee", "museum", "yard", "machine", "army", "map", "paper", "pub", "web", "mob", "beef", "muff", "wave",
)  # fmt: skip
_ADJECTIVES = (
    "purple", "fuzzy", "brave", "muddy", "thick", "royal", "yellow", "gentle", "huge", "tiny", "smooth", "vague",
    "bright", "warm", "cheap", "broad", "feeble", "awkward", "young", "loud", "pure", "weird", "moist", "odd",
    "simple", "famous", "empty", "northern", "public", "private", "foreign", "usual", "whole", "early", "busy",
)  # fmt: skip
_VERBS = (
    "bumped", "moved", "whipped", "shoved", "chose", "joined", "bathed", "found", "measured", "paid for", "wrapped",
    "pushed", "followed", "bought", "mixed", "jumped over", "laughed about", "waved at", "borrowed", "painted",
    "believed in", "chewed", "threw", "voiced", "allowed", "pulled", "gave up", "hummed about", "opened", "robbed",
    "thanked", "swam to", "teased", "judged", "fed",
)  # fmt: skip
_PLACES = (
    "behind the barn", "above the pub", "from top to bottom", "before dawn", "near the village pump", "by the ferry",
    "in the middle of May", "beyond the ridge", "through thick and thin", "at the beach", "under the poplar",
    "off the map", "between two bridges", "about four times", "without a sound", "for a while", "along the wharf",
    "on the fourth of July", "with both thumbs", "up in the loft", "over there",
)  # fmt: skip
_FRAMES = (
    "The {adjective} {noun} {verb} the {noun2} {place}.",
    "Why would the {noun} be {adjective} {place}?",
    "{name} {verb} my {adjective} {noun}, and {name2} {verb2} the {noun2}.",
    "Above all, we were {adjective}, as the {noun} and the {noun2} were {place}.",
    "{name} thought that the {noun} {verb} {number} {noun2}s {place}.",
    "Please put the {adjective} {noun} and the {noun2} {place}.",
    "There were {number} {adjective} {noun}s {place}.",
    "Maybe the {noun} is {adjective}, maybe it is {adjective2}.",
    "If you move the {noun}, the {noun2} will be {adjective} by {weekday}.",
    "In {town}, the {noun} {verb} {name}'s {noun2}.",
    "Who {verb} the {noun} that {name} {verb2} {place}?",
    "My {noun}, your {noun2}, his {adjective} {noun3} and her {noun4}.",
    "Both {name} and {name2} {verb} a {adjective} {noun}.",
    "We have {number} {noun}s, {number2} {noun2}s, and a {adjective} {noun3}.",
)

SENTENCES: dict[str, tuple[str, ...]] = {
    "de": (
        "Der Bäcker bringt morgens frische Brötchen und süße Hörnchen vorbei.",
        "Über den Dächern von München schweben fünf bunte Ballons.",
        "Mein Vater pflückt im Frühling weiße Blumen für die Mutter.",
        "Wir müssen bis zum Abend noch acht Pakete packen und verschicken.",
        "Das schöne Mädchen öffnet zögernd die grüne Tür.",
        "Vielleicht fahren wir im Februar wieder nach Österreich.",
        "Der Lappen liegt auf dem Eisschrank.",
        "Heute Abend könnte ich es ihm sagen, wenn er möchte.",
        "Pfeffer und Paprika passen prima zu Pilzen.",
        "Zwischen zwölf und eins macht das Büro eine Pause.",
        "Meine Großmutter wohnt neben der Apfelbaumwiese am Ufer.",
        "Jeden Freitag übt der Chor im großen Saal.",
        "Im Bahnhof warten viele Menschen auf den verspäteten Zug.",
        "Die junge Frau kaufte einen blauen Mantel und hübsche Schuhe.",
        "Bitte bleiben Sie am Apparat, ich verbinde Sie mit Frau Weber.",
        "Am Wochenende bin ich immer nach Hause gefahren und habe Peter besucht.",
        "Sie haben es gerade hochgetragen, und jetzt gehen sie wieder runter.",
        "Der Fuchs springt flink über den faulen Hund hinweg.",
        "Hinter der Burg fließt ein breiter Fluss durch das Moor.",
        "Wer früh aufbricht, kommt mühelos vor Mittag über den Pass.",
        "In sieben Stunden wird es so weit sein.",
    ),
    "fr": (
        "Ma petite voisine habite au bout de la rue depuis trois ans.",
        "Le boulanger prépare du bon pain blanc chaque matin.",
        "Nous voulons partir en vacances au bord de la mer.",
        "Un jeune homme brun joue de la flûte sous le pont.",
        "Les feuilles mortes tombent doucement dans le jardin.",
        "Pourquoi faut-il fermer la fenêtre quand il pleut ?",
        "Le peintre a mis du bleu et du vert sur le mur.",
    ),
    "es": (
        "Mi abuela prepara una buena sopa de pescado los viernes.",
        "El perro viejo duerme debajo de la mesa del comedor.",
        "Por favor, ponga los libros sobre el piano blanco.",
        "Vamos a caminar por la montaña mañana por la mañana.",
        "La guitarra de Pablo suena muy bien en la plaza.",
        "El jueves llegan nueve amigos de Buenos Aires.",
        "Nadie puede abrir la puerta pequeña del jardín.",
    ),
    "it": (
        "Il bambino mangia una mela verde sotto il grande albero.",
        "La mamma prepara la pasta con pomodoro e basilico.",
        "Domani mattina partiamo per il mare con tutta la famiglia.",
        "Il gatto bianco beve il latte vicino alla finestra.",
        "Vorrei comprare un paio di scarpe nuove e comode.",
        "Gli amici di Giulia giocano a pallone nel campo.",
        "Questo vecchio ponte fu costruito molto tempo fa.",
    ),
    "nl": (
        "De bakker brengt elke morgen vers brood naar de buurt.",
        "Mijn broer woont al vijf jaar in een klein huis.",
        "Wij gaan morgen met de fiets naar het strand.",
        "Het meisje speelt buiten met een grote rode bal.",
        "Kun je mij even helpen met deze zware doos?",
        "De buurvrouw geeft water aan de bloemen voor het huis.",
        "Op vrijdag eten wij meestal vis met aardappelen.",
    ),
    "pt": (
        "Minha mãe prepara o almoço para toda a família.",
        "O menino brinca com a bola azul no jardim.",
        "Vamos viajar para a praia no próximo fim de semana.",
        "A velha ponte fica perto da padaria do bairro.",
        "Por favor, feche a porta quando você sair.",
        "Os pássaros cantam de manhã bem cedo na floresta.",
        "Meu primo comprou um barco pequeno e bonito.",
    ),
    "pl": (
        "Moja babcia piecze najlepszy chleb w całej wsi.",
        "W piątek pojedziemy pociągiem nad morze.",
        "Mały chłopiec bawi się piłką przed domem.",
        "Proszę położyć książki na białym stole.",
        "Wczoraj padał deszcz, a dzisiaj świeci słońce.",
        "Sąsiadka podlewa kwiaty każdego wieczoru.",
        "Mój brat kupił nowy rower za pół ceny.",
    ),
    "sv": (
        "Min bror bor i ett litet hus vid havet.",
        "På fredag åker vi båt till den gröna ön.",
        "Flickan köper färskt bröd och blåbär på torget.",
        "Kan du öppna fönstret, det är varmt här inne?",
        "Hunden sover under bordet hela förmiddagen.",
        "Farfar spelar fiol varje kväll före maten.",
        "Vi plockade svamp och bär i skogen.",
    ),
}  # fmt: skip


def generic_sentence(generator: np.random.Generator, split: str, language: str = "en") -> str:
    """One sentence without affect, of this split's words."""
    if language != "en":
        return str(generator.choice(part(SENTENCES[language], split)))
    pools = {
        "noun": _NOUNS, "adjective": _ADJECTIVES, "verb": _VERBS, "place": _PLACES, "name": SLOTS["name"],
        "number": SLOTS["number"], "weekday": SLOTS["weekday"], "town": SLOTS["place"],
    }  # fmt: skip
    values: dict[str, str] = {}
    for slot, pool in pools.items():
        chosen = generator.choice(part(pool, split), size=4 if len(part(pool, split)) >= 4 else 1, replace=False)
        for k in range(4):
            values[slot if k == 0 else f"{slot}{k + 1}"] = str(chosen[k % len(chosen)])
    frame = str(generator.choice(part(_FRAMES, split)))
    sentence = re.sub(r"\ba (?=[aeiou])", "an ", frame.format(**values))
    return sentence[0].upper() + sentence[1:]
