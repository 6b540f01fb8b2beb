"""Hard negatives: the images that a checkpoint's own vision encoder finds most alike, near-duplicates left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.problem import Picture

NEAR_DUPLICATE = 0.95
_BATCH = 64


def embed(pictures: Sequence[Picture], checkpoint: str, *, trust_remote_code: bool = False) -> Any:
    """Unit vectors [pictures, width]: the encoder's features of each image, averaged over its tokens (float32).

    The mean over all images is taken off first: encoders put every image into one narrow cone, and only what differs
    between images makes them alike or not.
    """
    import torch

    from engines.checkpoint import load_model, load_processor
    from engines.rendering import open_image

    model = load_model(checkpoint, dtype="float32", trust_remote_code=trust_remote_code)
    model = model.to("cuda") if torch.cuda.is_available() else model
    image_processor = load_processor(checkpoint, trust_remote_code=trust_remote_code).image_processor
    vectors = []
    for start in range(0, len(pictures), _BATCH):
        images = [open_image(picture.path) for picture in pictures[start : start + _BATCH]]
        inputs = image_processor(images, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            # One tensor [tokens, width] per image, whatever the class: classes with a grid return a list of them.
            features = model.get_image_features(**inputs).pooler_output
        vectors += [each.float().mean(0).cpu() for each in features]
    stacked = torch.stack(vectors)
    return torch.nn.functional.normalize(stacked - stacked.mean(0), dim=1)


def nearest(vectors: Any, count: int) -> list[list[int]]:
    """For each row of unit vectors [n, width] the `count` rows of highest cosine, itself and near-duplicates left out.

    Highest first; fewer where there are not so many. Time n², memory n times a block.
    """
    import torch

    found: list[list[int]] = []
    for start in range(0, len(vectors), 1024):
        cosine = vectors[start : start + 1024] @ vectors.T
        cosine[cosine > NEAR_DUPLICATE] = -torch.inf
        rows = torch.arange(len(cosine))
        cosine[rows, rows + start] = -torch.inf
        values, order = cosine.topk(min(count, len(vectors)), dim=1)
        for value, indices in zip(values, order, strict=True):
            found.append(indices[value > -torch.inf].tolist())
    return found
