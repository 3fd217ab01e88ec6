"""CelebA's 40 attributes of a face, each read off what is drawn.

Limits of what varies continuously are set so that an attribute is about as frequent as in CelebA.
"""

from vaehpc.images.faces.traits import Face
from vaehpc.schema.results import ATTRIBUTES


def attributes_of(face: Face) -> dict[str, bool]:
    """Every attribute of ATTRIBUTES, in that order."""
    found = _hair(face) | _beard(face) | _skin_and_age(face) | _shape(face) | _expression(face) | _worn(face)
    return {name: found[name] for name in ATTRIBUTES}


def _hair(face: Face) -> dict[str, bool]:
    hair = face.hair
    shows = not hair.bald
    free_forehead = face.hat is None
    return {
        "Bald": hair.bald and free_forehead,
        "Bangs": shows and free_forehead and hair.bangs > 0.5,
        "Black_Hair": shows and hair.shade == "black",
        "Blond_Hair": shows and hair.shade == "blond",
        "Brown_Hair": shows and hair.shade == "brown",
        "Gray_Hair": shows and hair.shade == "gray",
        "Receding_Hairline": shows and free_forehead and hair.recession > 0.3,
        "Straight_Hair": shows and hair.wave < 0.1,
        "Wavy_Hair": shows and hair.wave > 0.4,
        "Bushy_Eyebrows": face.brows.density * face.brows.thickness > 1.7,
        "Arched_Eyebrows": face.brows.arch > 0.55,
    }


def _beard(face: Face) -> dict[str, bool]:
    beard = face.beard
    return {
        "5_o_Clock_Shadow": beard.stubble > 0.3,
        "Goatee": beard.goatee > 0.3,
        "Mustache": beard.mustache > 0.3,
        "Sideburns": beard.sideburns > 0.3,
        "No_Beard": max(beard.stubble, beard.full, beard.goatee, beard.mustache, beard.sideburns) == 0.0,
    }


def _skin_and_age(face: Face) -> dict[str, bool]:
    gray = face.hair.shade == "gray" and not face.hair.bald
    young = face.skin.wrinkles < 0.3 and not gray
    even = face.skin.bags < 0.3 and abs(face.head.asymmetry) < 0.5
    return {
        "Young": young,
        "Bags_Under_Eyes": face.skin.bags > 0.3,
        "Pale_Skin": face.skin.tone < 0.04,
        "Rosy_Cheeks": face.skin.blush > 0.5,
        "Heavy_Makeup": face.eyes.shadow_strength > 0.25 and face.mouth.lipstick_strength > 0.0,
        # Nobody can judge it. Here it means what its raters are known to prefer: young, smooth and symmetric.
        "Attractive": young and even and face.head.double_chin == 0.0,
        "Male": face.male,
        "Blurry": face.scene.blur > 0.0,
    }


def _shape(face: Face) -> dict[str, bool]:
    head = face.head
    return {
        "Big_Lips": face.mouth.upper + face.mouth.lower > 9.7,
        "Big_Nose": face.nose.half_width > 9.8,
        "Pointy_Nose": face.nose.pointedness > 0.6,
        "Narrow_Eyes": face.eyes.opening < 5.8,
        "Chubby": head.half_width > 49.0,
        "Double_Chin": head.double_chin > 0.0,
        "High_Cheekbones": head.cheekbones > 0.48,
        "Oval_Face": head.half_width < 44.5 and head.taper > 0.2,
    }


def _expression(face: Face) -> dict[str, bool]:
    return {"Smiling": face.mouth.smile > 0.3, "Mouth_Slightly_Open": face.mouth.gap > 0.0}


def _worn(face: Face) -> dict[str, bool]:
    return {
        "Eyeglasses": face.glasses is not None,
        "Wearing_Hat": face.hat is not None,
        "Wearing_Earrings": face.earrings is not None,
        "Wearing_Necklace": face.necklace is not None,
        "Wearing_Necktie": face.necktie is not None,
        "Wearing_Lipstick": face.mouth.lipstick_strength > 0.0,
    }
