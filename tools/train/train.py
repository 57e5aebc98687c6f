"""Trains the model on CPU in bf16 autocast; stops and resumes at any step.

    python3 train.py --work DIR --steps N [--length 512] [--batch 16] [--decay-from STEP]

DIR holds tokenizer.json (from train_tokenizer.py), gets log.jsonl and checkpoint.pt. The rate
warms up, stays, and goes linearly to zero between --decay-from and --steps, or within the last
--decay-minutes of --minutes, so a run may be prolonged, or ended early, without a plan. Each of
--processes computes its part of the batch on one core and they meet once per step: on a busy
machine that loses far less time than threads, which meet hundreds of times.
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


def rate_at(step, args, left):
    """The factor on the rate at a step, with `left` minutes to go; 0 ends the run."""
    if step < args.warmup:
        return (step + 1) / args.warmup
    factor = 1.0
    if args.decay_from and step >= args.decay_from:
        factor = (args.steps - step) / (args.steps - args.decay_from)
    if args.minutes:
        factor = min(factor, left / args.decay_minutes)
    return max(0.0, factor)


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


def average(model, processes, rate):
    """The mean gradient over the processes, and the mean of their rates (their clocks differ)."""
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in grads] + [torch.tensor([rate])])
    dist.all_reduce(flat)
    flat /= processes
    for grad, part in zip(grads, flat[:-1].split([g.numel() for g in grads])):
        grad.copy_(part.view_as(grad))
    return flat[-1].item()


def save(path, model, optims, step, config):
    state = {"model": model.state_dict(), "optims": [o.state_dict() for o in optims],
             "step": step, "config": vars(config)}
    torch.save(state, str(path) + ".new")
    os.replace(str(path) + ".new", path)


def load(path, model, optims):
    """The step to go on from: 0 without a checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    for optim, saved in zip(optims, state["optims"]):
        optim.load_state_dict(saved)
    return state["step"]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--books", help="a folder of public-domain .txt files")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--decay-from", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=0, help="ends the run by the clock")
    parser.add_argument("--decay-minutes", type=float, default=10)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--ramp", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--far", type=int, default=600, help="characters between list and query")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--skip", type=int, default=0, help="longest jump of the positions")
    parser.add_argument("--skip-from", type=int, default=0, help="the first step with jumps")
    parser.add_argument("--long", type=int, default=0, help="every n-th step has full-length rows")
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


class Data:
    """The batches of one process: short rows and, every n-th step, rows of the full context."""

    def __init__(self, rank, args, encoder, context, start):
        self.args, self.context = args, context
        self.source = corpus.Source(f"{args.seed}.{rank}", False, args.books, args.pairs, args.far)
        far = corpus.Source(f"{args.seed}.{rank}.long", False, args.books, args.pairs, 5000)
        self.rows = corpus.Rows(self.source, encoder, args.length, args.shares)
        self.far_rows = corpus.Rows(far, encoder, context, args.shares)
        # a resumed run begins behind everything that earlier ones can have read
        self.rows.count = self.far_rows.count = start * max(32, args.batch)
        self.streams = iter(self.rows), iter(self.far_rows)
        self.generator = torch.Generator().manual_seed(args.seed * 1000 + start * 2 + rank)

    def at(self, step):
        """(ids, positions, targets, weights) of a step."""
        args, count = self.args, self.args.batch // self.args.processes
        self.source.most_pairs = most_pairs(step, args)
        if args.long and step % args.long == 0:
            count = max(1, count * args.length // self.context)
            ids, targets, weights = batch_of(self.streams[1], count)
            return ids, positions_of(ids, 0, None), targets, weights
        ids, targets, weights = batch_of(self.streams[0], count)
        skip = args.skip if step >= args.skip_from else 0
        return ids, positions_of(ids, skip, self.generator), targets, weights


def weighted_loss(model, body, ids, positions, targets, weights):
    """Mean over the weights; tokens that nobody can predict do not even get logits."""
    kept = weights.flatten() > 0
    with torch.autocast("cpu", torch.bfloat16):
        hidden = body(ids, positions).flatten(0, 1)[kept].to(torch.bfloat16)
        return WeightedLoss.apply(hidden, model.embed_tokens.weight, targets.flatten()[kept],
                                  weights.flatten()[kept] / weights.sum())


def update(model, optims, rate):
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for o in optims:
        for group in o.param_groups:
            group["lr"] = rate
        o.step()
        o.zero_grad(set_to_none=True)


class Journal:
    """What the first process writes down: figures every 25 steps, checkpoints now and then."""

    def __init__(self, args, model, encoder):
        self.args, self.model = args, model
        self.held_out = held_out_batches(encoder, args)
        self.log = open(args.work / "log.jsonl", "a", buffering=1)
        self.began, self.seen, self.losses = time.time(), 0, []

    def step(self, done, loss, tokens, rate, ends):
        self.seen += tokens
        self.losses.append(loss)
        if done % 25 and not ends:
            return
        line = {"step": done, "loss": round(sum(self.losses) / len(self.losses), 4),
                "pairs": most_pairs(done, self.args), "length": self.args.length,
                "tokens_per_second": round(self.seen / (time.time() - self.began)),
                "rate": round(rate, 6)}
        if done % 200 == 0 or ends:
            line["held_out"] = measure(self.model, self.held_out)
        self.log.write(json.dumps(line) + "\n")
        self.began, self.seen, self.losses = time.time(), 0, []


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
    start = load(args.work / "checkpoint.pt", model, optims)
    data = Data(rank, args, encoder, config.context, start)
    journal = Journal(args, model, encoder) if rank == 0 else None
    body = model if args.no_compile else torch.compile(model, dynamic=False)
    print(f"process {rank}: {sum(p.numel() for p in model.parameters()):,} parameters, "
          f"from step {start}", flush=True)
    parent, launched = os.getppid(), time.time()
    for step in range(start, args.steps):
        if args.processes > 1 and os.getppid() != parent:
            return  # whoever stopped the run meant all of it
        ids, positions, targets, weights = data.at(step)
        loss = weighted_loss(model, body, ids, positions, targets, weights)
        loss.backward()
        rate = args.rate * rate_at(step, args, args.minutes - (time.time() - launched) / 60)
        if args.processes > 1:
            rate = average(model, args.processes, rate)
        update(model, optims, rate)
        ends = rate <= 0.0 or step + 1 == args.steps
        if rank == 0:
            journal.step(step + 1, loss.item(), ids.numel() * args.processes, rate, ends)
            if ends or (step + 1) % args.save_every == 0:
                save(args.work / "checkpoint.pt", model, optims, step + 1, config)
        if ends:
            return


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
