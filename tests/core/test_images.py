"""Pictures as every room needs them."""

from PIL import Image

from aclora.core.images import square


def test_the_central_square_is_kept():
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste("red", (10, 0, 30, 20))
    assert square(picture, 10).getcolors() == [(100, (255, 0, 0))]
