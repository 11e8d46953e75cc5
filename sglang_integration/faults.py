"""A launch that fails ends its requests with an error, not the server.

SGLang's scheduler ends with the first exception that a forward raises. The hooks here, put around its
methods of the same names by `plugin.py`, catch the chip's failures where they appear: in `run_batch` and
`launch_batch_sample_if_needed`, when a call of the driver fails, or ahead of `process_batch_result`, when the
work of the batch has: the event behind its results tells. By then the next batch may be queued; its work was
skipped and its event tells the same. The requests of a batch that failed are answered with an error, and
their pages freed. What fails anywhere else in the scheduler's loop leaves its books half written: then all
requests are answered so, pools and prefix cache begin anew, and the loop too. A chip that is lost ends the
server.
"""

import itertools
import logging
from http import HTTPStatus

import torch
from opennpu.runtime.device import NpuError
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch
from sglang.srt.managers.utils import GenerationBatchResult
from sglang.srt.runtime_context import get_schedule

logger = logging.getLogger("sglang.opennpu")

FAILURES = (torch.AcceleratorError, torch.OutOfMemoryError, NpuError)
DEVICE_LOST = 11  # NPU_ERROR_DEVICE_LOST of npu.h
MOST_STREAMS = 64  # of a device; each may hold a failure


class FailedBatch(GenerationBatchResult):
    """The result of a batch whose requests have been answered."""


def run_batch(run, scheduler, batch, *args, **options):
    try:
        return run(scheduler, batch, *args, **options)
    except FAILURES as error:
        end_batch(scheduler, batch, error)
        return FailedBatch()


def launch_batch_sample_if_needed(launch, scheduler, result, batch):
    """Of a batch that run_batch has put at the end of the queue of results."""
    try:
        return launch(scheduler, result, batch)
    except FAILURES as error:
        end_batch(scheduler, batch, error)
        scheduler.result_queue[-1] = (scheduler.result_queue[-1][0], FailedBatch())


def process_batch_result(process, scheduler, batch, result):
    if isinstance(result, FailedBatch):
        return
    try:
        _wait(result)
    except FAILURES as error:  # nothing of the result has been read
        end_batch(scheduler, batch, error)
        return
    process(scheduler, batch, result)


def stash_chunked_request(stash, scheduler, req):
    """A piece of a prompt enters the prefix cache with the whole, once that is known to be computed."""
    kept, req.skip_radix_cache_insert = req.skip_radix_cache_insert, True
    try:
        stash(scheduler, req)
    finally:
        req.skip_radix_cache_insert = kept


def get_next_batch_to_run(plan, scheduler, *args, **options):
    prompts = scheduler.waiting_queue and not scheduler.running_batch.batch_is_full
    if prompts or scheduler.chunked_req is not None:
        # Their pages are found on the chip, behind the batch under way: its failure would end that halfway.
        _end_failed_batches(scheduler)
    scheduler.opennpu_requests = _requests(scheduler)  # amid the planning some are in no queue and no batch
    return plan(scheduler, *args, **options)


def flush_cache(flush, scheduler, *args, **options):
    try:
        return flush(scheduler, *args, **options)
    except FAILURES as error:
        begin_anew(scheduler, error)
        return True


def event_loop(loop, scheduler):
    while True:
        try:
            return loop(scheduler)
        except FAILURES as error:
            begin_anew(scheduler, error)


event_loop_normal = event_loop_overlap = event_loop


# ---- what is done about a failure


def _end_failed_batches(scheduler) -> None:
    """Waits for the batches whose results are queued."""
    queue = getattr(scheduler, "result_queue", ())
    for i, (batch, result) in enumerate(list(queue)):
        try:
            _wait(result)
        except FAILURES as error:
            end_batch(scheduler, batch, error)
            queue[i] = batch, FailedBatch()


def end_batch(scheduler, batch: ScheduleBatch, error: Exception) -> None:
    """Answers the batch's requests with the error and frees what they hold. Raises for a lost chip."""
    reason = _settle(error)
    chunked = None
    for req in batch.reqs:
        if req.inflight_middle_chunks > 0:  # SGLang ends it, when no piece of it is under way
            req.inflight_middle_chunks -= 1
            req.discard_output_reason = reason
            scheduler._pending_chunked_abort_req = chunked = req
        elif not req.finished() and not req.is_retracted:
            _finish(req, reason)
            scheduler.batch_result_processor._handle_sampling_mask_abort(req)  # frees, caches nothing
    _tell(len(batch.reqs), error)
    scheduler.output_streamer.stream_output(batch.reqs, batch.return_logprob, chunked)


def begin_anew(scheduler, error: Exception) -> None:
    """Answers all requests with the error and empties queues, pools and prefix cache."""
    reason = _settle(error)
    logger.error("all requests fail, pools and prefix cache begin anew", exc_info=error)
    planned = getattr(scheduler, "opennpu_requests", ())
    known = dict.fromkeys([*planned, *_requests(scheduler)])
    ended = [req for req in known if not req.finished_output]
    for req in ended:
        req.finished_reason = None  # what else it may have ended with is not told in full
        _finish(req, reason)
        req.kv.req_pool_idx, req.lock, req.inflight_middle_chunks = None, None, 0
        req.kv.mark_kv_released()
    scheduler.waiting_queue = []
    scheduler.running_batch = ScheduleBatch(reqs=[], batch_is_full=False)
    scheduler.last_batch = scheduler.chunked_req = scheduler._pending_chunked_abort_req = None
    scheduler.tree_cache.reset()
    scheduler.req_to_token_pool.clear()
    scheduler.token_to_kv_pool_allocator.clear()
    _tell(len(ended), error)
    scheduler.output_streamer.stream_output(ended, any(req.return_logprob for req in ended))


def _requests(scheduler) -> list[Req]:
    """All that are in a queue or a batch."""
    batches = [scheduler.running_batch, scheduler.last_batch]
    batches += [batch for batch, _ in getattr(scheduler, "result_queue", ())]
    chunked = [scheduler.chunked_req] if scheduler.chunked_req is not None else []
    in_batches = itertools.chain.from_iterable(batch.reqs for batch in batches if batch is not None)
    return [*in_batches, *chunked, *scheduler.waiting_queue]


def _tell(requests: int, error: Exception) -> None:
    allocated = torch.opennpu.memory_allocated()
    logger.error(
        "%d requests have failed, %d bytes of chip memory are in use: %s", requests, allocated, error
    )


def _finish(req: Req, reason: FINISH_ABORT) -> None:
    req.to_finish = reason
    req.update_finish_state(0)


def _settle(error: Exception) -> FINISH_ABORT:
    """Waits until the chip is idle and all streams are usable; what the requests' answers say."""
    if getattr(error, "error_code", None) == DEVICE_LOST or getattr(error, "status", "") == "device_lost":
        logger.error("the chip is lost, the server ends: %s", error)
        raise error
    for _ in range(MOST_STREAMS):
        try:
            torch.opennpu.synchronize()
            break
        except torch.AcceleratorError:  # of one stream, which has told it now
            continue
    text = str(error).partition("\n")[0]
    if isinstance(error, torch.OutOfMemoryError):
        given = get_schedule()
        text += (
            f" For a server: set --mem-fraction-static below {given.mem_fraction_static} or "
            f"--chunked-prefill-size below {given.chunked_prefill_size}, which leaves launches more."
        )
    return FINISH_ABORT(text, HTTPStatus.INTERNAL_SERVER_ERROR, "InternalServerError")


def _wait(result) -> None:
    """Until the work behind a result is done. Raises its failure."""
    if isinstance(result, FailedBatch):
        return
    if result.copy_done is not None:
        result.copy_done.synchronize()
    else:
        torch.opennpu.current_stream().synchronize()
