"""Build the committed bundles from the fragments in tools/templates, so that nothing in them is typed twice.

    python tools/build_bundles.py            write bundles/
    python tools/build_bundles.py --check    exit 1 and say what differs, write nothing

A bundle is a model (templates/models/*.json that has a "card") on a data set (templates/data/*.json; the model's "data"
names it, LIDC-IDRI is the default). A config is
the deep merge, later ones winning, of templates/common/<section>.json and the sections of the data's and the model's
fragments; lists are joined where both sides have one under "imports", else replaced; "+name" appends to the list
"name"; what names another "_target_" replaces the whole object. A key with alternatives in braces stands for each of
them, also where its value repeats the braces: {"a_{x,y}": "@{x,y}"} is {"a_x": "@x", "a_y": "@y"}.

An overlay for another data set is templates/overlays/<name>.json below what the model's "overlays" say of it; one that
only others extend has no "dataset_dir". It is for the models of the data sets that its "instead_of" names (else of
LIDC-IDRI). A model's "variants" are overlays that make another model of it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from copy import deepcopy
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "tools" / "templates"
BUNDLES = ROOT / "bundles"
DATA = "lidc"

VARIANTS = """
## Variants

Overlays that make another model of this one, to be given behind every config
(`"['configs/train.json','configs/{name}.json']"`), one at a time and before that of the data set. Each keeps its models
and figures in a folder of its own; its weights are exported from there:

```
python -m monai.bundle ckpt_export --net_id network_def --filepath models/{name}/model.ts \
--ckpt_file models/{name}/model.pt \
--meta_file configs/metadata.json --config_file "['configs/inference.json','configs/{name}.json']"
```

{others}
"""

# which sections make a config, the earlier ones below the later ones
CONFIGS = {
    "train": ("base", "prepared", "train"),
    "evaluate": ("base", "prepared", "evaluate"),
    "inference": ("base", "inference"),
    "multi_gpu_train": ("multi_gpu_train",),
    "monai_transforms": ("monai_transforms",),
    "demo": ("demo",),
}


BRACES = re.compile(r"\{(\w+(?:,\w+)+)\}")


def read(path: Path) -> dict[str, Any]:
    return expand(json.loads(path.read_text(encoding="utf-8")))


def expand(content: Any) -> Any:
    """Every key with alternatives in braces, written out."""
    if isinstance(content, list):
        return [expand(value) for value in content]
    if not isinstance(content, dict):
        return content
    result: dict[str, Any] = {}
    for key, value in content.items():
        if braces := BRACES.search(key):
            text = json.dumps({key: value})
            for name in braces.group(1).split(","):
                result = merge(result, expand(json.loads(text.replace(braces.group(), name))))
        else:
            result = merge(result, {key: expand(value)})
    return result


def merge(low: Any, high: Any, key: str = "") -> Any:
    """``high`` over ``low``: dicts of one class merge key by key, "imports" are joined, anything else is replaced."""
    if isinstance(low, dict) and isinstance(high, dict):
        if low.get("_target_") != high.get("_target_", low.get("_target_")):
            return deepcopy(high)
        added = {k[1:]: low[k[1:]] + high[k] for k in high if k.startswith("+") and k[1:] in low}
        high = {k: v for k, v in high.items() if k[1:] not in added} | added
        return {
            k: merge(low[k], high[k], k) if k in low and k in high else high.get(k, low.get(k)) for k in {**low, **high}
        }
    if key == "imports":
        return low + [line for line in high if line not in low]
    return deepcopy(high)


def read_extended(folder: str, name: str) -> dict[str, Any]:
    """The fragment over those that it extends."""
    fragment = read(TEMPLATES / folder / f"{name}.json")
    parent = fragment.pop("extends", None)
    return merge(read_extended(folder, parent), fragment) if parent else fragment


def overlays(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> config, for every data set but the bundle's own."""
    names = sorted(path.stem for path in (TEMPLATES / "overlays").glob("*.json"))
    fragments = {name: read_extended("overlays", name) for name in names}
    data = model.get("data", DATA)
    fragments = {n: fragment for n, fragment in fragments.items() if data in fragment.pop("instead_of", [DATA])}
    special = model.get("overlays", {})
    return {
        name: _first(
            merge(fragment, special.get(name, {})), "+imports", "protocol", "dataset_dir", "ckpt_dir", "output_dir"
        )
        for name, fragment in fragments.items()
        if "dataset_dir" in fragment
    }


def variants(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Name -> config, for every other model that an overlay makes of this one."""
    return {name: {"variant": name, **content} for name, content in model.get("variants", {}).items()}


def _first(content: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: content[k] for k in keys if k in content} | content


def models() -> list[str]:
    return sorted(p.stem for p in (TEMPLATES / "models").glob("*.json") if "card" in read(p))


def config(kind: str, model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for section in CONFIGS[kind]:
        common = TEMPLATES / "common" / f"{section}.json"
        for fragment in (read(common) if common.exists() else {}, data.get(section, {}), model.get(section, {})):
            result = merge(result, fragment)
    # what runs stands last, where a reader looks for it
    ends = ("initialize", "training", "evaluating", "run")
    return {k: v for k, v in result.items() if k not in ends} | {k: result[k] for k in ends if k in result}


def metadata(model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    return merge(merge(read(TEMPLATES / "common" / "metadata.json"), data["metadata"]), model["metadata"])


def to_json(content: dict[str, Any]) -> str:
    """JSON with lists of plain values on one line, as a person would type it."""

    def render(value: Any, indent: str) -> str:
        inner = indent + "    "
        if isinstance(value, dict) and value:
            lines = (f"{inner}{json.dumps(k)}: {render(v, inner)}" for k, v in value.items())
            return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
        if isinstance(value, list) and any(
            isinstance(v, (dict, list)) or (isinstance(v, str) and len(v) > 24) for v in value
        ):
            return "[\n" + ",\n".join(f"{inner}{render(v, inner)}" for v in value) + f"\n{indent}]"
        return json.dumps(value, ensure_ascii=False)

    return render(content, "") + "\n"


def build(name: str) -> dict[str, str]:
    """Relative path -> text of every file of the bundle."""
    model = read_extended("models", name)
    source = model.get("data", DATA)
    data = read(TEMPLATES / "data" / f"{source}.json")
    configs = {kind: config(kind, model, data) for kind in CONFIGS}
    files = {f"configs/{kind}.json": to_json(content) for kind, content in configs.items() if content}
    for overlay, content in (overlays(model) | variants(model)).items():
        files[f"configs/{overlay}.json"] = to_json(content)
    meta = metadata(model, data)
    files["configs/metadata.json"] = to_json(meta)
    files["configs/logging.conf"] = (TEMPLATES / "common" / "logging.conf").read_text(encoding="utf-8")
    card = Template((TEMPLATES / "common" / "model_card.md").read_text(encoding="utf-8"))
    references = "\n".join(f"{i}. {text}" for i, text in enumerate(meta["references"], 1))
    changes = "\n".join(f"- {version}: {text}" for version, text in meta["changelog"].items())
    others = "\n".join(f"- `configs/{other}.json`: {text['protocol']}" for other, text in variants(model).items())
    words = {**data["card"], **model["about"], **model["card"]}
    files["docs/README.md"] = card.substitute(
        {key: "\n".join(text) if isinstance(text, list) else text for key, text in words.items()},
        **{k: meta[k] for k in ("name", "description", "version")},
        bundle=f"{name}_segmentation",
        references=references,
        changes=changes,
        variants=VARIANTS.format(others=others, name=next(iter(variants(model)))) if others else "",
    )
    files["docs/data_license.txt"] = (TEMPLATES / "data" / f"{source}_license.txt").read_text(encoding="utf-8")
    files["LICENSE"] = (ROOT / "LICENSE").read_text(encoding="utf-8")
    files["models/README.md"] = (TEMPLATES / "common" / "models_readme.md").read_text(encoding="utf-8")
    return {f"{name}_segmentation/{path}": text for path, text in files.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with what is committed, write nothing")
    check = parser.parse_args().check
    differing = []
    for name in models():
        for relative, text in build(name).items():
            path = BUNDLES / relative
            if path.exists() and path.read_text(encoding="utf-8") == text:
                continue
            differing.append(str(path.relative_to(ROOT)))
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    for path_name in differing:
        print(("differs: " if check else "wrote: ") + path_name)
    if check and differing:
        print("run 'python tools/build_bundles.py' and commit what it writes")
    return 1 if check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
