"""Says a plan in words, in many ways: one plan kind has thousands of wordings. English is here, Chinese in
`captions_chinese`."""

from __future__ import annotations

import re

import numpy as np

from anisora.synthetic.captions_chinese import chinese
from anisora.synthetic.duets import is_duet
from anisora.synthetic.handling import food_of
from anisora.synthetic.parts import PALETTES, Character, Pick, choose, picker
from anisora.synthetic.person import Person
from anisora.synthetic.plan import ClipPlan
from anisora.synthetic.versions import VERSIONS

# Third person, present; every phrase has a stem of its action in it or a plain synonym (tests hold the list).
ACTION_PHRASES: dict[str, tuple[str, ...]] = {
    "walk": ("walks {side}", "is walking {side}", "strolls {side}", "takes a walk, heading {side}"),
    "run": ("runs {side}", "is running {side}", "dashes {side}", "sprints {side}"),
    "skip": ("skips {side}", "is skipping along {side}", "hops happily {side}"),
    "jump": ("jumps up and down", "is jumping", "leaps into the air", "jumps high"),
    "wave": ("waves", "is waving a hand", "waves hello", "greets us with a wave"),
    "turn": ("turns around", "is turning from side to side", "turns to the other side"),
    "spin": ("spins around", "is spinning", "twirls on the spot", "whirls around"),
    "sit": ("sits down", "is sitting down on the ground", "takes a seat on the ground"),
    "fall": ("falls down", "slips and falls", "tumbles to the ground", "loses balance and falls"),
    "talk": ("talks", "is talking", "speaks", "is speaking and gesturing"),
    "nod": ("nods", "is nodding", "nods in agreement", "nods yes"),
    "shake_head": ("shakes the head", "is shaking the head", "says no with a shake of the head"),
    "dance": ("dances", "is dancing", "dances cheerfully", "moves to the beat, dancing"),
    "cheer": ("cheers", "is cheering with both arms up", "cheers and hops for joy"),
    "clap": ("claps", "is clapping", "applauds", "claps both hands"),
    "bow": ("bows", "is bowing", "takes a bow", "bows politely"),
    "bounce_ball": ("bounces a ball", "is bouncing a ball", "plays with a bouncing ball", "dribbles a red ball"),
    "look_around": ("looks around", "is looking around", "looks left and right, searching"),
    "laugh": ("laughs", "is laughing", "bursts out laughing", "laughs out loud"),
    "point": (
        "points {side}",
        "is pointing {side}",
        "stretches out an arm and points {side}",
        "points a finger {side}",
    ),
    "cry": ("cries", "is crying", "sobs and rubs the eyes", "bursts into tears", "weeps"),
    "sleep": ("sleeps sitting", "is asleep on the ground", "nods off", "dozes off, head sinking", "falls asleep"),
    "crawl": ("crawls {side}", "is crawling {side}", "crawls {side} on hands and knees", "goes on all fours {side}"),
    "yawn": ("yawns", "is yawning", "stretches and yawns", "gives a big yawn"),
    "eat": ("eats {food}", "is eating {food}", "takes a bite of {food}", "bites into {food} and chews"),
    "drink": ("drinks", "is drinking from a cup", "drinks from a cup", "lifts a cup and drinks"),
    "push": (
        "pushes a box {side}",
        "is pushing a heavy box {side}",
        "pushes a crate {side}",
        "leans into a box and pushes",
    ),
    "throw": ("throws a ball {side}", "is throwing a ball", "winds up and throws a ball", "hurls a ball {side}"),
    "pick_up": (
        "picks up a ball",
        "is picking up a ball",
        "bends down and picks up a ball",
        "lifts a ball off the ground",
    ),
    "fight": ("fights {other}", "is fighting {other}", "trades blows with {other}", "is in a fist fight with {other}"),
    "hug": ("hugs {other}", "is hugging {other}", "opens both arms and hugs {other}", "gives {other} a hug"),
    "high_five": ("gives {other} a high five", "is high-fiving {other}", "jumps up for a high five with {other}"),
    "blink": ("blinks", "is blinking", "blinks slowly", "closes and opens the eyes"),
    "surprise": (
        "is suddenly surprised",
        "gasps in surprise",
        "gets a surprise, eyes wide",
        "looks startled all at once",
    ),
    "brighten": ("cheers up", "goes from sad to happy", "is sad, then smiles", "breaks into a smile"),
    "sadden": ("becomes sad", "goes from happy to sad", "is happy, then close to tears", "stops smiling and looks sad"),
    "anger": ("gets angry", "becomes angry", "frowns, growing angry", "is calm, then angry"),
}

_FOOD = {"rice ball": "a rice ball", "apple": "an apple", "sandwich": "a sandwich"}

_STYLE = {
    "flat": ("flat colors", "a flat vector look", "flat cartoon style", "simple flat shading"),
    "line": ("line art", "ink outlines", "a hand-inked line drawing style", "pale colors with ink lines"),
    "cel": ("cel shading", "anime cel style", "cel-shaded animation", "classic cel animation style"),
    "painted": ("a painted look", "soft painted shading", "storybook painting style", "soft painterly colors"),
}

_PAPER = {
    "rough": ("", " on rough paper", " with paper grain"),
    "canvas": ("", " on canvas", " with a canvas texture"),
    "hatching": ("", " in crayon", " with pencil hatching"),
}

_CAMERA = {
    "static": ("static camera", "the camera does not move", "fixed shot", "locked-off camera"),
    "pan": ("the camera pans", "panning shot", "camera panning sideways", "a slow pan"),
    "follow": ("the camera follows", "tracking shot", "the camera pans along", "a pan that follows the character"),
    "zoom_in": ("the camera zooms in", "slow zoom in", "zooming in", "the camera pushes in"),
    "zoom_out": ("the camera zooms out", "slow zoom out", "zooming out", "the camera pulls back"),
    "shake": ("the camera shakes", "shaky camera", "camera shake", "a trembling camera"),
    "tilt": ("the camera tilts", "tilting shot", "the camera moves vertically", "a slow tilt"),
}

_PLACE = {
    "meadow": ("in a meadow", "on a green meadow", "among hills and flowers", "in the countryside"),
    "town": ("in a town street", "on a street with houses", "in a small town", "in front of colorful houses"),
    "forest": ("in a forest", "among trees", "in the woods"),
    "room": ("in a room", "indoors, in a cozy room", "at home"),
    "classroom": ("in a classroom", "in front of a blackboard", "at school"),
    "beach": ("on a beach", "by the sea", "on a sandy beach"),
    "night city": ("in a city at night", "in front of a night skyline", "in a city of lit windows"),
    "snowfield": ("in the snow", "on a snowy field", "in a winter landscape"),
    "cherry park": ("in a park with cherry blossoms", "under pink cherry trees", "in a spring park"),
}

_MOOD = {
    "day": ("", "on a sunny day", "in daylight"),
    "morning": ("in the morning", "in soft morning light"),
    "sunset": ("at sunset", "in evening light"),
    "night": ("at night", "under the night sky"),
    "overcast": ("on a gray day", "under an overcast sky"),
}

_EFFECT = {
    "rain": ("it is raining", "rain falls"),
    "snow": ("snow is falling", "snowflakes drift down"),
    "petals": ("petals drift by", "pink petals are falling"),
    "leaves": ("autumn leaves are falling", "leaves blow past"),
    "sparkles": ("sparkles twinkle", "with twinkling sparkles"),
    "bubbles": ("bubbles float up", "with floating bubbles"),
    "speed lines": ("with speed lines", "speed lines rush by"),
}

_ITEM = {
    "balloon": ("holding a balloon", "with a balloon in one hand"),
    "bird": ("while a bird flies past", "as a bird flies by"),
    "butterfly": ("while a butterfly flutters around", "with a butterfly nearby"),
    "box": ("beside a wooden box", "next to a box"),
    "rolling ball": ("as a red ball rolls past", "while a ball rolls by"),
}

_FRAMING = {
    "full": ("full body", "full shot", "seen from head to toe"),
    "half": ("medium shot", "half body", "seen from the waist up"),
    "close": ("close-up", "close-up of the face", "face close-up"),
    "face": ("extreme close-up", "the face fills the picture", "a close shot of the face alone"),
}

_HAIR = {
    "short": "short {} hair", "bob": "a {} bob", "long": "long {} hair", "ponytail": "a {} ponytail",
    "twin-tail": "{} twin tails", "spiky": "spiky {} hair", "bun": "{} hair in a bun", "curly": "curly {} hair",
    "braided": "a {} braid", "swept": "swept {} hair",
}  # fmt: skip

_EXTRA = {
    "cape": "a {} cape", "scarf": "a {} scarf", "hat": "a {} hat", "cat ears": "cat ears", "ribbon": "a {} ribbon",
    "glasses": "glasses", "backpack": "a {} backpack",
}  # fmt: skip

_TEMPLATES = (
    "{who} {does} {where}{extras}, {style}, {camera}",
    "{style}: {who} {does} {where}{extras}; {camera}",
    "{where}, {who} {does}{extras}. {camera}, {style}",
    "{framing} of {who} who {does} {where}{extras}, {camera}, {style}",
    "a cartoon of {who} who {does}{extras}, {where}, drawn in {style}, {camera}",
    "{camera}: {who} {does}{extras} {where}, {style}",
    "animation, {style}, {framing}, {who} {does} {where}{extras}, {camera}",
    "{who} {does}{extras}. the scene is {where}. {camera}. {style}",
    "{who} {does} {where}{extras}",
    "{who} {does}{extras}, {framing}, {camera}",
)


def caption(plan: ClipPlan, variant: int = 0) -> str:
    """One wording of the plan, in one of the languages of its version; other variants word it otherwise."""
    languages = VERSIONS[plan.version].languages
    language_rng, rng = (np.random.default_rng(np.random.SeedSequence((plan.rng_seed, k, variant))) for k in (8, 7))
    return _LANGUAGES[choose(language_rng, languages, tuple(languages.values()))](plan, rng)


def mirrored(text: str) -> str:
    """The caption of the clip seen in a mirror: left and right have changed places, in whichever language it is."""
    return re.sub(r"\b(?:left|right)\b|左右|左|右", lambda found: _MIRRORED[found[0]], text)


# 左右 is both sides, in this order only.
_MIRRORED = {"left": "right", "right": "left", "左": "右", "右": "左", "左右": "左右"}


def english(plan: ClipPlan, rng: np.random.Generator) -> str:
    """One wording of the plan in English."""
    pick = picker(rng)
    first, *others = plan.people
    if is_duet(first.action):
        does = _does(first, pick, _who(others[0], pick))
    else:
        does = _does(first, pick)
        if others:
            does += f", while {_who(others[0], pick)} {_does(others[0], pick)}"
    mood = pick(_MOOD[plan.mood]) if plan.background != "night city" else ""
    where = pick(_PLACE[plan.background]) + (f" {mood}" if mood and rng.random() < 0.7 else "")
    extras = f" {pick(_ITEM[plan.item])}" if plan.item in _ITEM else ""
    extras += f", {pick(_EFFECT[plan.effect])}" if plan.effect else ""
    text = pick(_TEMPLATES).format(
        who=_who(first, pick),
        does=does,
        where=where,
        extras=extras,
        style=pick(_STYLE[plan.style]) + (pick(_PAPER[plan.finish.paper]) if plan.finish.paper in _PAPER else ""),
        camera=pick(_CAMERA[plan.view.move]),
        framing=pick(_FRAMING[plan.framing]),
    )
    return text[0].upper() + text[1:]


_LANGUAGES = {"en": english, "zh": chinese}


def _does(person: Person, pick: Pick, other: str = "") -> str:
    side = "to the right" if person.facing > 0 else "to the left"
    return pick(ACTION_PHRASES[person.action]).format(side=side, food=_FOOD[food_of(person)], other=other)


def _who(person: Person, pick: Pick) -> str:
    c = person.character
    mood = person.emotion if person.emotion != "calm" else pick(("", "calm"))
    kind = {"girl": ("girl", "young girl", "little girl"), "boy": ("boy", "young boy", "little boy")}.get(
        c.kind, (f"{c.kind}", f"little {c.kind}", f"cartoon {c.kind}")
    )
    hair, top, _, accent = PALETTES[c.palette]
    noun = f"{hair} {pick(kind)}" if c.is_animal else pick(kind)
    words = _article(f"a {mood} {noun}".replace("  ", " "))
    told = int(pick(("0", "1", "1", "2", "3")))
    if told and not c.is_animal:
        words += f" with {_article(_HAIR[c.hair].format(hair))}"
    if told > 1 or (told and c.is_animal):
        words += f" {pick(('in', 'wearing'))} {_article(f'a {top} {_garment(c)}')}"
    if told > 2 and c.extra in _EXTRA:
        words += f" and {_article(_EXTRA[c.extra].format(accent))}"
    return words


def _article(phrase: str) -> str:
    """The phrase with "a" mended to "an" where it leads to a vowel."""
    return f"an {phrase[2:]}" if phrase.startswith("a ") and phrase[2] in "aeiou" else phrase


def _garment(c: Character) -> str:
    return {"school uniform": "school uniform", "overalls": "shirt under overalls"}.get(c.outfit, c.outfit)
