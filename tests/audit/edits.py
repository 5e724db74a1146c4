"""What people make of pictures: edited copies, and things that lie on many pictures that are not copies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont, ImageOps

Edit = Callable[[Image.Image], Image.Image]


def picture(seed: int) -> Image.Image:
    """Detail at four scales in gray, and a little colour, as photographs have it; not square."""
    rng = np.random.default_rng(seed)
    light = [rng.integers(0, 256, (size, size), np.uint8) for size in (5, 12, 30, 90)]
    layers = [Image.fromarray(one).resize((330, 280), Image.Resampling.BICUBIC) for one in light]
    gray = Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))
    colour = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((330, 280), Image.Resampling.BICUBIC)
    return Image.blend(gray.convert("RGB"), colour, 0.2)


def font(height: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(height, 8))


def turned_and_cut(image: Image.Image, degrees: float) -> Image.Image:
    """Without the corners that are empty."""
    width, height = image.size
    angle, longest = np.deg2rad(abs(degrees)), max(width / height, height / width)
    scale = 1 / (np.cos(angle) + np.sin(angle) * longest)
    left, top = width * (1 - scale) / 2, height * (1 - scale) / 2
    return image.rotate(degrees, Image.Resampling.BICUBIC).crop(
        (round(left), round(top), round(width - left), round(height - top))
    )


def with_mirrored_corners(image: Image.Image) -> Image.Image:
    width, height = image.size
    margin = min(width, height) // 3
    wide = np.pad(np.asarray(image), ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    turned = Image.fromarray(wide).rotate(10, Image.Resampling.BICUBIC)
    return turned.crop((margin, margin, margin + width, margin + height))


def captioned(image: Image.Image) -> Image.Image:
    width, height = image.size
    larger = Image.new("RGB", (width, height + height // 6), "black")
    larger.paste(image)
    ImageDraw.Draw(larger).text((5, height + 4), "Flower of the day", fill="white", font=font(height / 12))
    return larger


def watermarked(image: Image.Image) -> Image.Image:
    width, height = image.size
    layer = Image.new("RGBA", (width, height))
    for top in range(-height, 2 * height, height // 4):
        ImageDraw.Draw(layer).text((-width // 4, top), "SAMPLE  " * 5, fill=(255, 255, 255, 130), font=font(height / 8))
    return Image.alpha_composite(image.convert("RGBA"), layer.rotate(30)).convert("RGB")


def in_perspective(image: Image.Image) -> Image.Image:
    width, height = image.size
    corners = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    moved = [(0.08, 0.04), (0.98, 0.0), (1.0, 0.92), (0.01, 1.0)]
    rows, values = [], []
    for (x, y), (u, v) in zip(moved, corners, strict=True):
        x, y, u, v = x * width, y * height, u * width, v * height
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    factors = tuple(np.linalg.solve(np.array(rows), np.array(values)))
    return image.transform(image.size, Image.Transform.PERSPECTIVE, factors, Image.Resampling.BICUBIC)


def screenshot(image: Image.Image) -> Image.Image:
    width, height = image.size
    screen = Image.new("RGB", (width, int(height * 1.5)), (245, 245, 245))
    screen.paste(image, (0, int(height * 0.2)))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, width, int(height * 0.07)), fill=(30, 30, 30))
    draw.text((6, int(height * 1.27)), "Liked by anna and 12 others", fill="black", font=font(height / 18))
    return screen


def with_text(image: Image.Image) -> Image.Image:
    copy, (width, height) = image.copy(), image.size
    draw = ImageDraw.Draw(copy)
    draw.text((width // 10, height // 3), "BEAUTIFUL", fill="yellow", font=font(height / 6))
    draw.text((width // 10, height // 2), "SPRING", fill="red", font=font(height / 6))
    return copy


def other_hue(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    return Image.merge("HSV", (hue.point(lambda one: (one + 40) % 256), saturation, value)).convert("RGB")


def noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image).astype(float)
    return Image.fromarray((pixels + np.random.default_rng(0).normal(0, 18, pixels.shape)).clip(0, 255).astype("uint8"))


EDITS: dict[str, Edit] = {
    "turned by 3°": lambda image: turned_and_cut(image, 3),
    "turned by 7°": lambda image: turned_and_cut(image, 7),
    "turned by 10°, black corners": lambda image: image.rotate(10, Image.Resampling.BICUBIC),
    "turned by 10°, mirrored corners": with_mirrored_corners,
    "turned by 90°": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "caption": captioned,
    "caption, mirrored": lambda image: captioned(ImageOps.mirror(image)),
    "watermark": watermarked,
    "frame": lambda image: ImageOps.expand(image, max(image.size) // 10, (120, 70, 20)),
    "white border": lambda image: ImageOps.expand(image, max(image.size) // 8, "white"),
    "perspective": in_perspective,
    "screenshot": screenshot,
    "text": with_text,
    "other hue": other_hue,
    "other hue, turned": lambda image: other_hue(turned_and_cut(image, 5)),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(2)),
    "stretched": lambda image: image.resize((int(image.width * 1.2), image.height)),
    "noise": noisy,
    "corner": lambda image: image.crop((0, 0, int(image.width * 0.75), int(image.height * 0.75))),
    "half size, mirrored": lambda image: ImageOps.mirror(image.resize((image.width // 2, image.height // 2))),
}


def coloured_squares(seed: int, number: int, size: tuple[int, int]) -> Image.Image:
    cells = np.random.default_rng(seed).integers(0, 255, (number, number, 3)).astype(np.uint8)
    return Image.fromarray(cells).resize(size, Image.Resampling.NEAREST)


def with_logo(image: Image.Image) -> Image.Image:
    copy, side = image.copy(), image.height // 4
    copy.paste(coloured_squares(5, 12, (side, side)), (image.width - side - 5, 5))
    return copy


def with_frame_of_pattern(image: Image.Image) -> Image.Image:
    framed, border = coloured_squares(6, 40, image.size), max(image.size) // 10
    framed.paste(image.crop((border, border, image.width - border, image.height - border)), (border, border))
    return framed


def with_ruler(image: Image.Image) -> Image.Image:
    copy, (width, height) = image.copy(), image.size
    draw, top = ImageDraw.Draw(copy), int(height * 0.8)
    draw.rectangle((0, top, width, top + height // 10), fill=(240, 240, 200))
    for tick in range(40):
        draw.line((width * tick / 40, top, width * tick / 40, top + height // (20 if tick % 5 else 12)), "black", 2)
        if tick % 5 == 0:
            draw.text((width * tick / 40 + 2, top + height // 25), str(tick), fill="black", font=font(height / 20))
    return copy


def with_date(image: Image.Image) -> Image.Image:
    copy, (width, height) = image.copy(), image.size
    ImageDraw.Draw(copy).text((width * 0.55, height * 0.85), "2024-05-11 12:44", "orange", font(height / 14))
    return copy


OVERLAYS: dict[str, Edit] = {
    "logo": with_logo,
    "caption": captioned,
    "ruler": with_ruler,
    "frame": with_frame_of_pattern,
    "date": with_date,
}
