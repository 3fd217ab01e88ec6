"""What is to be seen in one picture, as a frozen value: sampling makes it, drawing and attributes read it.

Lengths are pixels of the aligned 178 x 218 frame, angles radians, colours RGB in 0..255. Traits without a unit run
from 0 (none) to 1 (as much as is ever drawn) unless their comment says otherwise.
"""

from dataclasses import dataclass
from typing import Literal

Colour = tuple[float, float, float]
HairShade = Literal["black", "brown", "blond", "gray", "auburn", "dyed"]
HatKind = Literal["beanie", "cap", "brimmed"]


@dataclass(frozen=True)
class Pose:
    """How the head is held; the eyes stay where CelebA aligns them, up to the shift."""

    roll: float
    shift_x: float
    shift_y: float
    scale: float
    turn: float  # sine of the angle to the side, positive: nose to the right of the picture
    nod: float  # sine of the angle up or down, positive: nose down


@dataclass(frozen=True)
class Light:
    """One key light and what the surroundings reflect."""

    right: float  # -1..1, where the key light stands: left to right of the picture
    above: float  # 0..1
    contrast: float  # how dark the shadow side becomes
    exposure: float  # factor on all pixels
    warmth: float  # -1 bluish .. 1 reddish


@dataclass(frozen=True)
class Head:
    """The outline and relief of the skull, and the age of the skin on it."""

    half_width: float
    crown: float  # height above the eyes
    chin: float  # depth below the eyes
    taper: float  # how much narrower the jaw is than the cheeks
    squareness: float
    cheekbones: float
    double_chin: float
    neck: float  # half width
    asymmetry: float  # -1..1, one half of the face hangs lower


@dataclass(frozen=True)
class Skin:
    """Colour and surface."""

    tone: float  # 0 pale .. 1 deep
    redness: float
    blush: float
    shine: float
    wrinkles: float
    bags: float


@dataclass(frozen=True)
class Eyes:
    """Both eyes; they mirror each other except for the gaze."""

    half_width: float
    opening: float  # lid to lid
    slant: float  # slope, positive: outer corners up
    iris: Colour
    iris_radius: float
    gaze_x: float
    gaze_y: float
    lashes: float
    shadow: Colour
    shadow_strength: float


@dataclass(frozen=True)
class Brows:
    """Both brows."""

    height: float  # above the eyes
    half_width: float
    thickness: float
    arch: float
    slant: float  # slope, positive: outer ends up
    density: float


@dataclass(frozen=True)
class Nose:
    """The nose."""

    half_width: float
    tip: float  # depth below the eyes
    pointedness: float
    bridge: float  # how far it stands out


@dataclass(frozen=True)
class Mouth:
    """Lips and what they show."""

    half_width: float
    depth: float  # below the eyes
    upper: float  # thickness of the upper lip
    lower: float
    smile: float  # -0.4 corners down .. 1
    gap: float  # between the lips
    lipstick: Colour
    lipstick_strength: float


@dataclass(frozen=True)
class Hair:
    """Hair of the head; colour also of brows and beard."""

    shade: HairShade
    colour: Colour
    bald: bool
    volume: float  # thickness over the skull
    length: float  # where it ends, below the eyes
    hairline: float  # height above the eyes
    bangs: float  # 0: forehead free, 1: covered down to the brows
    recession: float  # height of the bays at the temples
    parting: float  # x of the parting
    sweep: float  # -1..1, which side of the forehead is covered more
    curtain: float  # how much of the cheeks hair covers
    wave: float
    texture: int  # row of the strand pattern


@dataclass(frozen=True)
class Beard:
    """Facial hair by region, as opacity."""

    stubble: float
    full: float
    goatee: float
    mustache: float
    sideburns: float


@dataclass(frozen=True)
class Glasses:
    """Frame and lenses."""

    half_width: float
    half_height: float
    squareness: float
    thickness: float
    colour: Colour
    tint: float  # opacity of the lenses


@dataclass(frozen=True)
class Hat:
    """What covers the crown."""

    kind: HatKind
    colour: Colour
    brim: float  # height of its lower edge above the eyes
    height: float  # above the skull


@dataclass(frozen=True)
class Earrings:
    """A pair, stud to drop."""

    colour: Colour
    size: float
    drop: float


@dataclass(frozen=True)
class Necklace:
    """A chain or beads."""

    colour: Colour
    depth: float  # lowest point below the eyes
    thickness: float
    beads: float  # 0: chain, 1: beads


@dataclass(frozen=True)
class Necktie:
    """A tie over a white collar."""

    colour: Colour
    stripe: Colour
    stripes: float


@dataclass(frozen=True)
class Clothes:
    """What the shoulders wear."""

    colour: Colour
    pattern: float
    collar_x: float  # half width of the neckline
    collar_y: float  # its depth below the shoulders


@dataclass(frozen=True)
class Scene:
    """Background and camera."""

    near_colour: Colour
    far_colour: Colour
    angle: float  # of the gradient
    unevenness: float
    grain: int  # number of patches across, 2..9
    bands: float
    lamps: int  # number of unfocused lamps
    texture: int  # seed of patches and lamps
    blur: float  # sigma of the camera's blur
    noise: float  # standard deviation of the sensor's noise


@dataclass(frozen=True)
class Face:
    """One picture."""

    male: bool
    pose: Pose
    light: Light
    head: Head
    skin: Skin
    eyes: Eyes
    brows: Brows
    nose: Nose
    mouth: Mouth
    hair: Hair
    beard: Beard
    clothes: Clothes
    scene: Scene
    glasses: Glasses | None
    hat: Hat | None
    earrings: Earrings | None
    necklace: Necklace | None
    necktie: Necktie | None
