"""How a frame gets its colors: a picture that is given, scribbles that spread, versions that the prior invents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from omnifusion.clip.prepare import without_color
from omnifusion.color import compose, from_uint8, luminance, to_uint8
from omnifusion.geometry import fit_size, resize
from omnifusion.inpaint import suggest
from omnifusion.progress import run_to_end
from omnifusion.ui import paint
from omnifusion.ui.panels import EXEMPLAR
from omnifusion.ui.showing import Showing, Updates, fold
from omnifusion.ui.visit import Visit, tie, tie_made
from omnifusion.video import read_image, write_image

VERSIONS = 3
"""So many does the prior offer of a frame."""


class Exemplars(Showing):
    """The handlers of the colored frames."""

    def _pictures(self, visit: Visit) -> Updates:
        tied = [(str(path), f"frame {frame}") for frame, path in sorted(visit.pictures.items())]
        done = ", ".join(name for _, name in tied) or ("the clip's own first frame" if visit.color else "")
        return {
            self.clip.exemplar: fold(EXEMPLAR, done, open=visit.clip is not None and not done),
            self.clip.pictures: gr.Gallery(tied, visible=bool(tied)),
            self.clip.forget: gr.Button(visible=bool(tied)),
        }

    def _tied(self, visit: Visit, note: str) -> Updates:
        return {self.visit: visit, self.clip.notes: note, self.clip.picture: None, **self._pictures(visit)}

    def seek(self, visit: Visit, frame: int) -> Updates:
        """The slider under the clip was moved."""
        if visit.clip is None:
            return {self.clip.preview: None}
        known = [read_image(path).transpose(1, 2, 0) for path in visit.pictures.values()][:1]
        inks = paint.inks_of(known[0]) if known else paint.INKS
        picture = visit.preview(int(frame))
        return {self.clip.preview: picture, self.clip.brush: paint.on_picture(picture, inks), self.clip.spread: None}

    def add_picture(self, visit: Visit, frame: int, path: str | None, force: bool) -> Updates:
        """A colored picture was given for the frame on the slider."""
        if path is None:
            return {self.visit: visit}
        return self._tied(*tie(visit, int(frame), Path(path), self.service.limits, force))

    def own_picture(self, visit: Visit, frame: int) -> Updates:
        """The clip's own colors serve as exemplar."""
        image = visit.frame(int(frame))
        return self._tied(*tie_made(visit, int(frame), image, "with the clip's own colors"))

    def forget_pictures(self, visit: Visit) -> Updates:
        """All exemplars are dropped."""
        return self._tied(replace(visit, pictures={}), "All exemplars are removed.")

    def spread(self, visit: Visit, frame: int, scribbles: Any) -> np.ndarray | None:
        """A stroke was drawn: where its color would go."""
        visit.require_clip()
        return paint.shown(visit.preview(int(frame)), paint.read_scribbles(scribbles))

    def take_scribbles(self, visit: Visit, frame: int, scribbles: Any) -> Updates:
        """The scribbles are good as they are."""
        image, shown = without_color(visit.frame(int(frame))), visit.preview(int(frame)).shape[:2]
        made = paint.patch(image, paint.read_scribbles(scribbles), shown)
        return self._tied(*tie_made(visit, int(frame), made, "from your scribbles"))

    def guess(self, visit: Visit, frame: int, *chosen: Any) -> Updates:
        """Nobody knows the colors: the prior offers versions."""
        image, settings = visit.frame(int(frame)), self.asked(visit, chosen).settings
        asked = replace(settings, diffusion="always", omnimotion="off")
        self.service.bound(asked, VERSIONS, visit.size)
        L = luminance(from_uint8(image))
        size = fit_size(visit.size, asked.max_side)
        stages, seeds = self.service.stages(), range(asked.seed, asked.seed + VERSIONS)
        with self.service.runs.beside():
            found = run_to_end(suggest(resize(L[None], size)[0], seeds, lambda tasks: stages.inpaint(tasks, asked)))
        assert visit.folder is not None
        paths = [visit.folder / f"version_{seed}.png" for seed in seeds]
        for path, ab in zip(paths, found, strict=True):
            path.unlink(missing_ok=True)
            write_image(path, to_uint8(compose(L, resize(ab[None], visit.size)[0])).numpy())
        return {self.visit: replace(visit, versions=(int(frame), *paths)), self.clip.versions: [str(p) for p in paths]}

    def take_version(self, visit: Visit, event: gr.SelectData) -> Updates:
        """One of the prior's versions was chosen."""
        frame, *paths = visit.versions
        image = read_image(paths[event.index])
        return self._tied(
            *tie_made(visit, frame, image, "that the prior invented; change it with scribbles if you like")
        )
