"""Who is photographed: how often each trait occurs and which come together, roughly as in CelebA."""

import numpy as np

from vaehpc.images.faces.traits import (
    Beard,
    Brows,
    Clothes,
    Colour,
    Earrings,
    Eyes,
    Face,
    Glasses,
    Hair,
    HairShade,
    Hat,
    HatKind,
    Head,
    Light,
    Mouth,
    Necklace,
    Necktie,
    Nose,
    Pose,
    Scene,
    Skin,
)

HAIR_COLOURS: dict[HairShade, Colour] = {
    "black": (34, 28, 28),
    "brown": (98, 64, 42),
    "blond": (205, 168, 106),
    "gray": (176, 174, 172),
    "auburn": (142, 62, 34),
    "dyed": (150, 60, 120),
}
METALS: tuple[Colour, ...] = ((222, 182, 92), (214, 216, 222), (240, 232, 220), (70, 150, 140), (190, 50, 60))
LIPSTICKS: tuple[Colour, ...] = ((188, 34, 48), (204, 70, 96), (150, 36, 62), (216, 106, 96), (120, 24, 44))
IRISES: tuple[Colour, ...] = (
    (74, 46, 28),
    (96, 62, 34),
    (120, 100, 56),
    (92, 122, 96),
    (96, 134, 170),
    (120, 136, 146),
)
EYE_SHADOWS: tuple[Colour, ...] = ((70, 50, 60), (120, 80, 60), (86, 84, 120), (150, 100, 120), (60, 60, 64))


def sample_face(rng: np.random.Generator) -> Face:
    """Draw one person and one photograph of them."""
    male = _chance(rng, 0.42)
    # 0: twenty years, 1: eighty. What is seen of it are wrinkles, bags and gray hair.
    age = float(rng.beta(2.2, 3.2) if male else rng.beta(1.4, 3.6))
    made_up = not male and _chance(rng, 0.66)
    # Pale skin is rare and apart from the rest, so that the attribute can be seen.
    tone = _between(rng, 0.0, 0.02) if _chance(rng, 0.045) else 0.08 + 0.92 * float(rng.beta(1.1, 2.4))
    smile = float(rng.uniform(0.35, 1.0)) if _chance(rng, 0.5) else float(rng.uniform(-0.25, 0.25))
    hat = _sample_hat(rng) if _chance(rng, 0.06) else None
    hair = _sample_hair(rng, male, age, tone, pressed=hat is not None)
    suit = _chance(rng, 0.17 if male else 0.005)
    return Face(
        male=male,
        pose=_sample_pose(rng),
        light=_sample_light(rng),
        head=_sample_head(rng, male, smile),
        skin=_sample_skin(rng, age, tone, made_up),
        eyes=_sample_eyes(rng, tone, smile, made_up),
        brows=_sample_brows(rng, male),
        nose=_sample_nose(rng, male),
        mouth=_sample_mouth(rng, male, smile, made_up),
        hair=hair,
        beard=_sample_beard(rng) if male and _chance(rng, 0.42) else Beard(0.0, 0.0, 0.0, 0.0, 0.0),
        clothes=_sample_clothes(rng, male, suit),
        scene=_sample_scene(rng),
        glasses=_sample_glasses(rng) if _chance(rng, 0.04 + 0.12 * age) else None,
        hat=hat,
        earrings=_sample_earrings(rng) if _chance(rng, 0.02 if male else 0.32) else None,
        necklace=_sample_necklace(rng) if not suit and _chance(rng, 0.02 if male else 0.21) else None,
        necktie=_sample_necktie(rng) if suit else None,
    )


def _chance(rng: np.random.Generator, probability: float) -> bool:
    return bool(rng.random() < probability)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _around(rng: np.random.Generator, mean: float, spread: float, low: float, high: float) -> float:
    """Normal with `spread` as standard deviation, held inside [low, high]."""
    return min(max(float(rng.normal(mean, spread)), low), high)


def _jittered(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    """A neighbour of `colour`: all channels together, and each a little for itself."""
    together = _between(rng, -spread, spread)
    red, green, blue = (
        min(max(channel + together + float(own), 8.0), 250.0)
        for channel, own in zip(colour, rng.uniform(-0.4 * spread, 0.4 * spread, 3), strict=True)
    )
    return red, green, blue


def _one_of(rng: np.random.Generator, palette: tuple[Colour, ...], spread: float) -> Colour:
    return _jittered(rng, palette[int(rng.integers(len(palette)))], spread)


def _any_colour(rng: np.random.Generator, saturation: float, low: float, high: float) -> Colour:
    """A brightness in [low, high] and a deviation from gray of up to `saturation` per channel."""
    brightness = _between(rng, low, high)
    red, green, blue = (
        min(max(brightness + float(own), 4.0), 252.0) for own in rng.uniform(-saturation, saturation, 3)
    )
    return red, green, blue


def _sample_pose(rng: np.random.Generator) -> Pose:
    return Pose(
        roll=_around(rng, 0.0, 0.035, -0.1, 0.1),
        shift_x=_around(rng, 0.0, 1.0, -2.5, 2.5),
        shift_y=_around(rng, 0.0, 1.0, -2.5, 2.5),
        scale=_around(rng, 1.0, 0.03, 0.92, 1.08),
        turn=_around(rng, 0.0, 0.14, -0.3, 0.3),
        nod=_around(rng, 0.0, 0.08, -0.2, 0.2),
    )


def _sample_light(rng: np.random.Generator) -> Light:
    return Light(
        right=_between(rng, -0.85, 0.85),
        above=_between(rng, 0.05, 0.75),
        contrast=_between(rng, 0.25, 1.0),
        exposure=_between(rng, 0.82, 1.08),
        warmth=_around(rng, 0.1, 0.4, -1.0, 1.0),
    )


def _sample_head(rng: np.random.Generator, male: bool, smile: float) -> Head:
    return Head(
        half_width=_around(rng, 46.5 if male else 44.0, 2.2, 39.0, 53.0),
        crown=_around(rng, 69.0, 2.5, 62.0, 75.0),
        chin=_around(rng, 69.0 if male else 66.0, 3.0, 59.0, 77.0),
        taper=_around(rng, 0.16 if male else 0.24, 0.06, 0.04, 0.38),
        squareness=_around(rng, 0.42 if male else 0.22, 0.14, -0.1, 0.75),
        cheekbones=_around(rng, 0.38 + 0.22 * smile, 0.18, 0.0, 1.0),
        double_chin=_between(rng, 0.35, 1.0) if _chance(rng, 0.05) else 0.0,
        neck=_around(rng, 33.0 if male else 26.5, 2.5, 21.0, 40.0),
        asymmetry=_around(rng, 0.0, 0.33, -1.0, 1.0),
    )


def _sample_skin(rng: np.random.Generator, age: float, tone: float, made_up: bool) -> Skin:
    blush = _between(rng, 0.3, 1.0) if _chance(rng, 0.26 if made_up else 0.06) else _between(rng, 0.0, 0.25)
    return Skin(
        tone=tone,
        redness=_between(rng, 0.0, 1.0),
        blush=blush,
        shine=_between(rng, 0.0, 1.0),
        wrinkles=_around(rng, 1.5 * age - 0.45, 0.12, 0.0, 1.0),
        bags=_between(rng, 0.4, 1.0) if _chance(rng, 0.08 + 0.35 * age) else _between(rng, 0.0, 0.2),
    )


def _sample_eyes(rng: np.random.Generator, tone: float, smile: float, made_up: bool) -> Eyes:
    # Light irises belong to light skin: the palette runs from dark to light.
    lightest = 2 if tone > 0.45 else len(IRISES)
    return Eyes(
        half_width=_around(rng, 10.2, 0.7, 8.2, 12.0),
        opening=_around(rng, 7.4 - 0.9 * max(smile, 0.0), 1.0, 3.4, 10.0),
        slant=_around(rng, 0.05, 0.06, -0.12, 0.22),
        iris=_one_of(rng, IRISES[:lightest], 14.0),
        iris_radius=_around(rng, 4.3, 0.3, 3.5, 5.2),
        gaze_x=_around(rng, 0.0, 1.0, -2.6, 2.6),
        gaze_y=_around(rng, 0.0, 0.4, -1.0, 1.0),
        lashes=_between(rng, 0.5, 1.0) if made_up else _between(rng, 0.0, 0.45),
        shadow=_one_of(rng, EYE_SHADOWS, 14.0),
        shadow_strength=_between(rng, 0.2, 0.85) if made_up else 0.0,
    )


def _sample_brows(rng: np.random.Generator, male: bool) -> Brows:
    return Brows(
        height=_around(rng, 14.0 if male else 16.5, 1.3, 11.0, 20.0),
        half_width=_around(rng, 12.5, 0.8, 10.5, 14.5),
        thickness=_around(rng, 2.15 if male else 1.45, 0.42, 0.7, 3.4),
        arch=_around(rng, 0.28 if male else 0.52, 0.16, 0.0, 1.0),
        slant=_around(rng, 0.04, 0.08, -0.16, 0.24),
        density=_between(rng, 0.45, 0.95),
    )


def _sample_nose(rng: np.random.Generator, male: bool) -> Nose:
    return Nose(
        half_width=_around(rng, 9.6 if male else 8.3, 1.1, 6.3, 13.0),
        tip=_around(rng, 27.0, 1.6, 22.5, 31.5),
        pointedness=_around(rng, 0.4 if male else 0.5, 0.2, 0.0, 1.0),
        bridge=_between(rng, 0.2, 1.0),
    )


def _sample_mouth(rng: np.random.Generator, male: bool, smile: float, made_up: bool) -> Mouth:
    parted = _chance(rng, 0.72 if smile > 0.3 else 0.24)
    return Mouth(
        half_width=_around(rng, 15.8 + 2.4 * max(smile, 0.0), 1.1, 12.5, 21.0),
        depth=_around(rng, 43.5, 1.4, 39.5, 47.5),
        upper=_around(rng, 3.1 if male else 3.8, 0.7, 1.6, 6.0),
        lower=_around(rng, 4.6 if male else 5.4, 0.9, 2.6, 8.0),
        smile=smile,
        gap=_between(rng, 1.6, 7.0) if parted else 0.0,
        lipstick=_one_of(rng, LIPSTICKS, 16.0),
        lipstick_strength=_between(rng, 0.35, 0.95) if made_up or (not male and _chance(rng, 0.4)) else 0.0,
    )


def _hair_shade(rng: np.random.Generator, age: float, tone: float) -> HairShade:
    if age > 0.5 and _chance(rng, 0.35):
        return "gray"
    if tone > 0.5:
        return "black" if _chance(rng, 0.8) else "brown"
    shades: tuple[HairShade, ...] = ("black", "brown", "blond", "auburn", "dyed")
    return shades[int(rng.choice(5, p=(0.22, 0.34, 0.3, 0.12, 0.02)))]


def _sample_hair(rng: np.random.Generator, male: bool, age: float, tone: float, pressed: bool) -> Hair:
    """Hair; pressed under a hat."""
    shade = _hair_shade(rng, age, tone)
    long = _chance(rng, 0.06 if male else 0.82)
    volume = _between(rng, 4.0, 16.0) if long else _between(rng, 2.0, 13.0)
    receding = male and _chance(rng, 0.08 + 0.35 * age)
    with_bangs = not receding and _chance(rng, 0.09 if male else 0.22)
    return Hair(
        shade=shade,
        colour=_jittered(rng, HAIR_COLOURS[shade], 9.0 if shade == "black" else 20.0),
        bald=male and _chance(rng, 0.02 + 0.09 * age),
        volume=0.25 * volume if pressed else volume,
        length=_between(rng, 45.0, 125.0) if long else _between(rng, -4.0, 16.0 if male else 30.0),
        hairline=_around(rng, 47.0, 3.0, 40.0, 54.0),
        bangs=_between(rng, 0.6, 1.0) if with_bangs else _between(rng, 0.0, 0.25),
        recession=_between(rng, 0.4, 1.0) if receding else _between(rng, 0.0, 0.15),
        parting=_between(rng, -26.0, 26.0),
        sweep=_between(rng, -1.0, 1.0),
        curtain=_between(rng, 0.0, 1.0),
        wave=_between(rng, 0.45, 1.0) if _chance(rng, 0.15 if male else 0.5) else _between(rng, 0.0, 0.3),
        texture=int(rng.integers(1 << 16)),
    )


def _sample_beard(rng: np.random.Generator) -> Beard:
    """One of: unshaven, goatee, mustache alone, full, sideburns alone; several regions may come with each."""
    kind = int(rng.choice(5, p=(0.46, 0.24, 0.05, 0.19, 0.06)))
    return Beard(
        stubble=_between(rng, 0.35, 0.9) if kind == 0 else 0.0,
        full=_between(rng, 0.6, 0.95) if kind == 3 else 0.0,
        goatee=_between(rng, 0.6, 0.95) if kind == 1 else 0.0,
        mustache=_between(rng, 0.55, 0.95) if kind in (2, 3) or (kind == 1 and _chance(rng, 0.4)) else 0.0,
        sideburns=_between(rng, 0.6, 0.9) if kind in (3, 4) else 0.0,
    )


def _sample_clothes(rng: np.random.Generator, male: bool, suit: bool) -> Clothes:
    return Clothes(
        colour=_any_colour(rng, 12.0, 18.0, 80.0) if suit else _any_colour(rng, 60.0, 25.0, 225.0),
        pattern=_between(rng, 0.2, 1.0) if not suit and _chance(rng, 0.3) else 0.0,
        collar_x=_between(rng, 24.0, 36.0) if male else _between(rng, 28.0, 60.0),
        collar_y=_between(rng, 2.0, 14.0) if male else _between(rng, 4.0, 42.0),
    )


def _sample_scene(rng: np.random.Generator) -> Scene:
    return Scene(
        near_colour=_any_colour(rng, 26.0, 15.0, 235.0),
        far_colour=_any_colour(rng, 26.0, 15.0, 235.0),
        angle=_between(rng, 0.0, 2.0 * np.pi),
        unevenness=_between(rng, 0.0, 1.0) ** 1.5,
        grain=int(rng.integers(2, 9)),
        bands=_between(rng, 0.2, 1.0) if _chance(rng, 0.2) else 0.0,
        lamps=int(rng.integers(2, 9)) if _chance(rng, 0.25) else 0,
        texture=int(rng.integers(1 << 31)),
        blur=_between(rng, 1.2, 2.6) if _chance(rng, 0.055) else 0.0,
        noise=_between(rng, 0.0, 2.5),
    )


def _sample_glasses(rng: np.random.Generator) -> Glasses:
    return Glasses(
        half_width=_between(rng, 13.0, 16.5),
        half_height=_between(rng, 8.5, 13.0),
        squareness=_between(rng, 0.0, 0.8),
        thickness=_between(rng, 0.7, 2.2),
        colour=_any_colour(rng, 25.0, 12.0, 90.0),
        tint=_between(rng, 0.6, 0.95) if _chance(rng, 0.22) else _between(rng, 0.0, 0.12),
    )


def _sample_hat(rng: np.random.Generator) -> Hat:
    kinds: tuple[HatKind, ...] = ("beanie", "cap", "brimmed")
    return Hat(
        kind=kinds[int(rng.integers(3))],
        colour=_any_colour(rng, 60.0, 25.0, 215.0),
        brim=_between(rng, 26.0, 36.0),
        height=_between(rng, 5.0, 16.0),
    )


def _sample_earrings(rng: np.random.Generator) -> Earrings:
    return Earrings(colour=_one_of(rng, METALS, 12.0), size=_between(rng, 2.0, 4.2), drop=_between(rng, 0.0, 18.0))


def _sample_necklace(rng: np.random.Generator) -> Necklace:
    return Necklace(
        colour=_one_of(rng, METALS, 12.0),
        depth=_between(rng, 84.0, 97.0),
        thickness=_between(rng, 0.9, 2.4),
        beads=_between(rng, 0.0, 1.0),
    )


def _sample_necktie(rng: np.random.Generator) -> Necktie:
    return Necktie(
        colour=_any_colour(rng, 70.0, 30.0, 150.0),
        stripe=_any_colour(rng, 40.0, 120.0, 230.0),
        stripes=_between(rng, 0.3, 0.9) if _chance(rng, 0.4) else 0.0,
    )
