"""A checkout with scripts that behave like the original's: their arguments, their progress bars, their files."""

from __future__ import annotations

from pathlib import Path

TRAIN = """\
import argparse, json, os, signal, struct, subprocess, sys, time
parser = argparse.ArgumentParser()
for name in ("config_path", "pretrained_model_name_or_path", "train_data_meta", "output_dir"):
    parser.add_argument("--" + name, required=True)
for name in ("train_data_dir", "transformer_path"):
    parser.add_argument("--" + name)
for name in ("sample_size", "sample_n_frames", "sample_stride", "train_batch_size", "num_train_epochs", "seed"):
    parser.add_argument("--" + name, type=int, required=True)
parser.add_argument("--learning_rate", type=float, required=True)
args, _ = parser.parse_known_args()
mood = os.environ.get("STANDIN", "")
rows = json.load(open(args.train_data_meta))
print(json.dumps({"args": vars(args), "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"), "cwd": os.getcwd()}))
total = len(rows) * args.num_train_epochs
for step in range(1, total + 1):
    loss = "nan" if mood == "nan" else 1 / step
    for shown in (1 / max(step - 1, 1), loss):  # the bar first moves with the loss of the step before
        sys.stderr.write(f"\\rSteps:  {step}%|#  | {step}/{total} [00:01<00:05,  3.21it/s, ")
        sys.stderr.write(f"lr={args.learning_rate}, step_loss={shown}]")
        sys.stderr.flush()
    if mood == "hang" and step == 2:
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        open(os.environ["STANDIN_PIDS"], "w").write(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    if mood == "fail" and step == 2:
        print("\\nCUDA out of memory")
        sys.exit(3)
    if mood == "kill" and step == 2:
        os.kill(os.getpid(), signal.SIGKILL)
header = json.dumps({"lora_unet__a.lora_up.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
if mood != "no checkpoint":
    for step in sorted({2, total}):
        with open(os.path.join(args.output_dir, f"checkpoint-{step}.safetensors"), "wb") as file:
            file.write(struct.pack("<Q", len(header)) + header + (b"" if mood == "torn" else bytes(4)))
"""

INFER = """\
import argparse, json, os, struct, sys, time
parser = argparse.ArgumentParser()
for name in ("config_path", "prompt_info_path", "pretrained_model_name_or_path", "save_path"):
    parser.add_argument("--" + name, required=True)
for name in ("lora_path", "transformer_path", "mixed_precision"):
    parser.add_argument("--" + name)
for name in ("image_size", "chunks_num", "chunk_id", "batch_size", "video_num_per_prompt", "seed"):
    parser.add_argument("--" + name, type=int, required=True)
args = parser.parse_args()
assert (args.chunks_num, args.chunk_id) == (1, 0)
bad = os.environ.get("STANDIN_PROMPT")
box = lambda kind, content: struct.pack(">I", 8 + len(content)) + kind + content
for entry in json.load(open(args.prompt_info_path)):
    prompt = entry["prompt_en"]
    print("generating", prompt, flush=True)
    for index in range(args.video_num_per_prompt):
        mood = os.environ.get("STANDIN", "") if prompt == bad and index == 1 else ""
        if mood == "fail":
            print("CUDA error: an illegal memory access was encountered")
            sys.exit(3)
        if mood == "hang":
            time.sleep(600)
        if mood == "hang once" and not os.path.exists(os.environ["STANDIN_PIDS"]):
            with open(os.environ["STANDIN_PIDS"] + ".new", "w") as file:
                file.write(f"{os.getpid()} {os.getppid()}")
            os.rename(file.name, os.environ["STANDIN_PIDS"])
            time.sleep(600)
        if mood == "skip":
            continue
        content = box(b"ftyp", b"isom") + box(b"mdat", f"{prompt} {index} {args.seed} {args.lora_path}".encode())
        content += b"" if mood == "torn" else box(b"moov", b"index")
        with open(os.path.join(args.save_path, f"{prompt}-{index}.mp4"), "wb") as file:
            file.write(content)
        open(os.environ["STANDIN_LOG"], "a").write(f"{prompt}-{index}\\n")
"""

WRAPPER = """\
[ $# -eq 14 ] || { echo "14 arguments, not $#"; exit 2; }
exec python "$(dirname "$0")/train_lora.py" --config_path=x --pretrained_model_name_or_path="$1" \\
  --transformer_path="$2" --train_data_dir="$3" --train_data_meta="$4" --sample_size="$5" \\
  --sample_n_frames=16 --sample_stride=2 --train_batch_size="$7" --num_train_epochs="$9" \\
  --seed="${11}" --output_dir="${12}" --learning_rate=2e-05
"""


def checkout_in(folder: Path) -> Path:
    """Writes the scripts; returns the folder."""
    folder.mkdir(parents=True)
    for name, text in [("train_lora.py", TRAIN), ("infer_lora.py", INFER), ("train_lora.sh", WRAPPER)]:
        (folder / name).write_text(text)
    return folder
