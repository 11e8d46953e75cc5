"""A launch that fails ends the requests under way with an error, not the server.

SGLang's scheduler ends with the first exception. Where the chip's failure comes through, in planning, in a
forward or in the reading of results, its books may be half written, on the chip too: work behind the failure
was skipped, and with it what says which pages are whose. So all requests are answered with the error, pools
and prefix cache begin anew, and the scheduler's loop too. A chip that is lost ends the server.
"""

import gc
import itertools
import logging
from http import HTTPStatus

import torch
from opennpu.runtime.device import NpuError
from sglang.srt.managers.schedule_batch import FINISH_ABORT, Req, ScheduleBatch
from sglang.srt.runtime_context import get_schedule

logger = logging.getLogger("sglang.opennpu")

FAILURES = (torch.AcceleratorError, torch.OutOfMemoryError, NpuError)
DEVICE_LOST = 11  # NPU_ERROR_DEVICE_LOST of npu.h
MOST_STREAMS = 64  # of a device; each may hold a failure


def process_batch_result(process, scheduler, batch, result):
    _wait(result)  # a failure is told before anything of the result is read
    process(scheduler, batch, result)


def get_next_batch_to_run(plan, scheduler, *args, **options):
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


def begin_anew(scheduler, error: Exception) -> None:
    """Answers all requests with the error, empties queues, pools and prefix cache. Raises for a lost chip."""
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
    gc.collect()  # of earlier failures: their frames, which hold tensors, refer to each other
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
    if result.copy_done is not None:
        result.copy_done.synchronize()
    else:
        torch.opennpu.current_stream().synchronize()
