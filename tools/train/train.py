"""Trains the model on CPU in bf16 autocast; stops and resumes at any step.

    python3 train.py --work DIR --steps N [--length 512] [--batch 16] [--decay-from STEP]

DIR holds tokenizer.json (from train_tokenizer.py), gets log.jsonl and checkpoint.pt. The rate
warms up, stays, and goes linearly to zero between --decay-from and --steps, so a run may be
prolonged, or ended early, without planning its length in advance. Each of --processes computes its
part of the batch on one core and they meet once per step: on a busy machine that loses far less
time than threads, which meet hundreds of times.
"""

import argparse
import json
import os
import pathlib
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import corpus
from model import Config, Llama, WeightedLoss


def optimizers(model, rate, decay):
    """Muon for the matrices of the layers, Adam for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    return [torch.optim.Muon(matrices, lr=rate, weight_decay=decay, momentum=0.95,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def rate_at(step, args):
    if step < args.warmup:
        return (step + 1) / args.warmup
    if args.decay_from and step >= args.decay_from:
        return max(0.0, (args.steps - step) / (args.steps - args.decay_from))
    return 1.0


def most_pairs(step, args):
    """The curriculum of recall: few bindings first, all of them after --ramp steps."""
    return min(args.pairs, 4 + (args.pairs - 4) * step // max(1, args.ramp))


def batch_of(rows, count):
    pairs = [next(rows) for _ in range(count)]
    ids = torch.tensor([p[0] for p in pairs])
    weights = torch.tensor([p[1] for p in pairs])
    return ids[:, :-1], ids[:, 1:].contiguous(), weights[:, 1:]


def positions_of(ids, skip, generator):
    """Positions of every row. With `skip`, half of the rows jump ahead once, by up to that much:
    short rows then teach what long distances look like, at the price of short ones."""
    batch, length = ids.shape
    positions = torch.arange(length).repeat(batch, 1)
    if skip:
        where = torch.randint(1, length, (batch, 1), generator=generator)
        jump = torch.randint(-skip, skip + 1, (batch, 1), generator=generator).clamp(min=0)
        positions = positions + jump * (positions >= where)
    return positions


def held_out_batches(encoder, args):
    """Per kind, a few rows of the held-out side; always the same ones."""
    batches = {}
    for kind in corpus.SHARES:
        source = corpus.Source(7, True, args.books, most_pairs=args.pairs, far=args.far)
        if kind == "book" and not source.books.texts:
            continue
        rows = iter(corpus.Rows(source, encoder, args.length, {kind: 1.0}))
        batches[kind] = batch_of(rows, max(2, 4096 // args.length))
    return batches


@torch.no_grad()
def measure(model, batches):
    """Loss and token accuracy on full-weight tokens, per kind."""
    figures = {}
    for kind, (ids, targets, weights) in batches.items():
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model(ids, positions_of(ids, 0, None))
            loss, right = model.token_losses(hidden, targets)
        mask = weights >= 0.5
        figures[kind] = [round(loss[mask].mean().item(), 4),
                         round(right[mask].float().mean().item(), 4)]
    return figures


def average(model, processes):
    """The mean gradient over the processes."""
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= processes
    for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
        grad.copy_(part.view_as(grad))


def save(path, model, optims, step, rows, config):
    state = {"model": model.state_dict(), "optims": [o.state_dict() for o in optims],
             "step": step, "rows": rows.count, "config": vars(config)}
    torch.save(state, str(path) + ".new")
    os.replace(str(path) + ".new", path)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--books", help="a folder of public-domain .txt files")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--decay-from", type=int, default=0)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--ramp", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--far", type=int, default=600, help="characters between list and query")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--skip", type=int, default=0, help="longest jump of the positions")
    parser.add_argument("--skip-from", type=int, default=0, help="the first step with jumps")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.02)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shares", type=json.loads, default=corpus.SHARES,
                        help="shares of the kinds of text, as JSON")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--save-every", type=int, default=200)
    return parser.parse_args()


def work(rank, args, meeting):
    """One process of the run; the first one measures, logs and saves."""
    if args.processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank,
                                world_size=args.processes)
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    encoder = corpus.Encoder(args.work / "tokenizer.json")
    config = Config(vocab=encoder.tokenizer.get_vocab_size())
    model = Llama(config)
    optims = optimizers(model, args.rate, args.weight_decay)
    checkpoint, start = args.work / "checkpoint.pt", 0
    source = corpus.Source(f"{args.seed}.{rank}", False, args.books, most_pairs(0, args), args.far)
    rows = corpus.Rows(source, encoder, args.length, args.shares)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for o, s in zip(optims, state["optims"]):
            o.load_state_dict(s)
        start, rows.count = state["step"], state["rows"]
    held_out = held_out_batches(encoder, args) if rank == 0 else {}
    stream = iter(rows)
    generator = torch.Generator().manual_seed(args.seed * 1000 + start * 2 + rank)
    body = model if args.no_compile else torch.compile(model)

    def weighted(ids, targets, weights, skip):
        """Mean over the weights; tokens that nobody can predict do not even get logits."""
        kept = weights.flatten() > 0
        kept_weights = weights.flatten()[kept] / weights.sum()
        positions = positions_of(ids, skip, generator)
        hidden = body(ids, positions).flatten(0, 1)[kept].to(torch.bfloat16)
        return WeightedLoss.apply(hidden, model.embed_tokens.weight, targets.flatten()[kept],
                                  kept_weights)

    log = open(args.work / "log.jsonl" if rank == 0 else os.devnull, "a", buffering=1)
    print(f"process {rank}: {sum(p.numel() for p in model.parameters()):,} parameters, "
          f"from step {start}", flush=True)
    began, seen, loss_sum = time.time(), 0, 0.0
    parent = os.getppid()
    for step in range(start, args.steps):
        if args.processes > 1 and os.getppid() != parent:
            return  # whoever stopped the run meant all of it
        source.most_pairs = most_pairs(step, args)
        for o in optims:
            for group in o.param_groups:
                group["lr"] = args.rate * rate_at(step, args)
        ids, targets, weights = batch_of(stream, args.batch // args.processes)
        with torch.autocast("cpu", torch.bfloat16):
            loss = weighted(ids, targets, weights, args.skip * (step >= args.skip_from))
        loss.backward()
        if args.processes > 1:
            average(model, args.processes)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optims:
            o.step()
            o.zero_grad(set_to_none=True)
        seen += ids.numel() * args.processes
        loss_sum += loss.item()
        done = step + 1
        if done % 25 == 0:
            line = {"step": done, "loss": round(loss_sum / 25, 4), "pairs": source.most_pairs,
                    "tokens_per_second": round(seen / (time.time() - began)),
                    "rate": optims[0].param_groups[0]["lr"], "length": args.length}
            if done % 200 == 0 or done == args.steps:
                line["held_out"] = measure(model, held_out)
            log.write(json.dumps(line) + "\n")
            began, seen, loss_sum = time.time(), 0, 0.0
        if rank == 0 and (done % args.save_every == 0 or done == args.steps):
            save(checkpoint, model, optims, done, rows, config)


def main():
    args = arguments()
    if args.processes == 1:
        work(0, args, None)
        return
    meeting = args.work.resolve() / f"meeting.{os.getpid()}"
    mp.spawn(work, (args, meeting), args.processes)
    meeting.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
