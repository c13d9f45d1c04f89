"""What the name of an axis says it is: N (images follow each other), C (colours), H or W."""
import re

HEIGHT = {"y", "row", "rows", "line", "lines", "lat", "latitude", "rlat", "north", "northing",
          "dety", "qy", "ky", "zeile", "zeilen", "ligne", "lignes", "fila", "filas", "riga",
          "righe", "linha"}
WIDTH = {"x", "col", "cols", "column", "columns", "lon", "longitude", "rlon", "east", "easting",
         "detx", "qx", "kx", "spalte", "spalten", "colonne", "colonnes", "columna", "columnas",
         "colonna", "coluna"}
COLOUR = {"c", "channel", "channels", "color", "colour", "colors", "colours", "rgb", "rgba",
          "band", "bands", "farbe", "farben", "kanal", "kanäle", "couleur", "couleurs", "canal",
          "canaux", "canali", "canales", "colore", "colori"}
# Also beside x and y in one name: `rotation_angle_x`, `x_translation`.
QUANTITY = {"t", "time", "times", "timestamp", "z", "angle", "angles", "theta", "phi", "omega",
            "rotation", "translation", "energy", "energies", "wavelength", "wavelengths", "lambda",
            "spectrum", "spectra", "lev", "level", "levels", "plev", "altitude", "batch",
            "ensemble", "member", "realization", "temperature", "pressure", "zeit", "winkel",
            "energie", "wellenlänge", "temps", "profondeur", "tiempo", "tempo", "energia"}
# Not beside x and y: `image_y`, `scan_x`.
COUNTED = {"n", "slice", "slices", "frame", "frames", "image", "images", "plane", "planes",
           "projection", "projections", "scan", "step", "bild", "bilder", "ebene", "ebenen",
          "schicht", "schichten", "coupe", "coupes", "tranche", "tranches"}
# Names that libraries give to axes without one.
NAMELESS = re.compile(r"(phony_)?(dim|dimension|axis|d)?[_ ]?\d*|\.|none|unknown", re.IGNORECASE)
# Of these `height` may also be a level of the atmosphere, beside y and x.
WEAK = {"height": "H", "width": "W", "depth": "N", "index": "N", "number": "N", "position": "N"}
# What `data.axes` may call an axis beside y, x and c.
LETTERS = set("abcdefghijklmnopqrstuvwxyz")
MEANING = {"y": "H", "x": "W", "c": "C"}


def letter_of(name: str) -> str | None:
    """N, C, H or W as the words in a name say, None where they say nothing."""
    words = set(re.split(r"[\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()))
    for known, letter in ((QUANTITY, "N"), (HEIGHT, "H"), (WIDTH, "W"), (COUNTED, "N"),
                          (COLOUR, "C")):
        if known & words:
            return letter
    return None


def letters_of(names: list[str]) -> list[str | None]:
    """Of the names of all axes of a dataset; words of two meanings yield to clear ones."""
    letters = [letter_of(name) for name in names]
    for axis, name in enumerate(names):
        weak = WEAK.get(name.lower())
        if letters[axis] is None and weak is not None:
            letters[axis] = "N" if weak in "HW" and weak in letters else weak
    return letters


def means_nothing(name: str) -> bool:
    """Whether it is a name, but one that says nothing here."""
    return not NAMELESS.fullmatch(name) and letter_of(name) is None


def asked_layout(axes: str) -> str | None:
    """tzyx -> NNHW; None unless y and x are there once, c at most once, and no letter twice."""
    good = (set(axes) <= LETTERS and len(set(axes)) == len(axes) and {"y", "x"} <= set(axes))
    return "".join(MEANING.get(letter, "N") for letter in axes) if good else None
