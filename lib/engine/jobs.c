/* SPDX-License-Identifier: MIT */
#include "engine/jobs.h"

#define FIRST 16U
#define FEWEST 4U
/* More does not make anything faster that was seen, and each is a thread and a handle. */
#define MOST 32U
/* One page cache takes no more than four can give it; several files may be read at once. */
#define MOST_FOR_MEMORY 8U
/* An epoch needs this long and so many reads for each that may run; a verdict holds so long. */
#define EPOCH_NS UINT64_C(150000000)
#define EPOCH_READS_EACH 2U
#define HOLD_NS UINT64_C(3000000000)
#define GAIN_TO_KEEP_MORE 1.10
#define LOSS_TO_KEEP_FEWER 0.97
#define SURE_OF_MEMORY 8U

static void begin_epoch(struct jobs *jobs, uint64_t now_ns)
{
    jobs->epoch_start_ns = now_ns;
    jobs->epoch_bytes = 0;
    jobs->epoch_reads = 0;
    jobs->starved = false;
}

static unsigned least_of(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

void jobs_init(struct jobs *jobs, unsigned fixed, unsigned most, unsigned processors,
               uint64_t now_ns)
{
    unsigned memory = least_of(processors / 2, MOST_FOR_MEMORY);
    *jobs = (struct jobs){.fixed = least_of(fixed, JOBS_MOST),
                          .most = least_of(most, MOST),
                          .for_memory = memory < 2 ? 2 : memory};
    jobs->current = jobs->fixed != 0 ? jobs->fixed : least_of(FIRST, jobs->most);
    begin_epoch(jobs, now_ns);
}

bool jobs_read_memory(const struct jobs *jobs)
{
    return jobs->memory_runs >= SURE_OF_MEMORY / 2;
}

unsigned jobs_allowed(const struct jobs *jobs)
{
    bool few = jobs->fixed == 0 && jobs_read_memory(jobs);
    return few ? least_of(jobs->for_memory, jobs->current) : jobs->current;
}

void jobs_note_read(struct jobs *jobs, uint64_t bytes, bool from_memory)
{
    if (from_memory)
        jobs->memory_runs += jobs->memory_runs < SURE_OF_MEMORY;
    else
        jobs->memory_runs -= jobs->memory_runs > 0;
    jobs->epoch_bytes += bytes;
    jobs->epoch_reads++;
}

void jobs_note_starved(struct jobs *jobs)
{
    jobs->starved = true;
}

/* Begins a trial with more, or with fewer. */
static unsigned begin_trial(struct jobs *jobs, double rate)
{
    jobs->trial_from = jobs->current;
    jobs->trial_rate = rate;
    if (jobs->try_fewer && jobs->current / 2 >= FEWEST)
        return jobs->current / 2;
    return least_of(jobs->current * 2, jobs->most);
}

/* What the trial has come to: where it goes on from. */
static unsigned end_trial(struct jobs *jobs, double rate, uint64_t now_ns)
{
    unsigned from = jobs->trial_from;
    bool was_more = jobs->current > from;
    jobs->trial_from = 0;
    if (rate >= jobs->trial_rate * (was_more ? GAIN_TO_KEEP_MORE : LOSS_TO_KEEP_FEWER))
        return jobs->current; /* and tries further in the same direction */
    jobs->try_fewer = !jobs->try_fewer;
    if (!was_more)
        jobs->hold_until_ns = now_ns + HOLD_NS;
    return from;
}

void jobs_adapt(struct jobs *jobs, uint64_t now_ns)
{
    uint64_t elapsed = now_ns - jobs->epoch_start_ns;
    if (jobs->fixed != 0)
        return;
    if (jobs->starved || jobs_read_memory(jobs) || now_ns < jobs->hold_until_ns) {
        begin_epoch(jobs, now_ns);
        return;
    }
    if (elapsed < EPOCH_NS || jobs->epoch_reads < EPOCH_READS_EACH * jobs->current)
        return;
    double rate = (double)jobs->epoch_bytes / (double)elapsed;
    jobs->current = jobs->trial_from == 0 ? begin_trial(jobs, rate) : end_trial(jobs, rate, now_ns);
    begin_epoch(jobs, now_ns);
}
