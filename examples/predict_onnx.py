"""Predict with an exported network; needs numpy, pillow and onnxruntime, not JAX.

lsanet export --workdir=runs/mine --format=onnx
python examples/predict_onnx.py runs/mine/model.onnx image.png [...]
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
about = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
(height, width), mode = about["stored_size"], {1: "L", 3: "RGB"}[about["stored_channels"]]
if about["decoding"].get("fit", "squash") != "squash":
    sys.exit("error: this program squashes images; for those that were cropped: lsanet predict")
resize = Image.Resampling[about["decoding"]["resize"].upper()]
for name in sys.argv[2:]:
    image = ImageOps.exif_transpose(Image.open(name))
    if image.mode.startswith(("I", "F")):
        sys.exit(f"error: {name}: found {image.mode}, expected 8 bits; for others: lsanet predict")
    if "A" in image.getbands() or "transparency" in image.info:  # is laid over black
        seen = image.convert("RGBA")
        image = Image.new("RGB", image.size)
        image.paste(seen.convert("RGB"), mask=seen.getchannel("A"))
    image = image.convert(mode).resize((width, height), resize)
    batch = np.asarray(image).reshape(1, height, width, -1)
    (probabilities,) = session.run(None, {"images": batch})[0]
    shown = [round(float(p), 4) for p in probabilities]
    print(name, dict(zip(about["classes"], shown, strict=True)))
    for point in about.get("operating_points", []):
        p = probabilities[about["classes"].index(point["class"])]
        threshold = np.inf if point["threshold"] is None else point["threshold"]
        print(f"  {point['class']}: {'yes' if p >= threshold else 'no'}")
