/* SPDX-License-Identifier: MIT */
#include "fs/host/privileges.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* To mount and to unmount; to read the checkpoint of whoever it belongs to; to write the log, the
 * mirrored status and the cache of digests where they were asked for. The middle one, and not the
 * last, would do for a checkpoint, but the kernel tells which pages are cached only to who might
 * write the file. */
#define KEPT                                                             \
    (UINT64_C(1) << CAP_SYS_ADMIN | UINT64_C(1) << CAP_DAC_READ_SEARCH | \
     UINT64_C(1) << CAP_DAC_OVERRIDE)

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3];
    for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
        if (!(KEPT >> capability & 1))
            prctl(PR_CAPBSET_DROP, capability);
    if (syscall(SYS_capget, &header, sets))
        return;
    for (unsigned i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
        uint32_t kept = (uint32_t)(KEPT >> (32 * i));
        sets[i].permitted &= kept;
        sets[i].effective &= kept;
        sets[i].inheritable = 0;
    }
    syscall(SYS_capset, &header, sets);
}

/* The sanitizers' own threads look into the process. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#elif defined __x86_64__
#define NATIVE_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined __aarch64__
#define NATIVE_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef NATIVE_ARCHITECTURE

/* What no part of unshard, nor of the libraries that it uses, has a reason to call. */
static const uint16_t refused[] = {
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_acct,
    SYS_syslog,
    SYS_quotactl,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_by_handle_at,
    SYS_fanotify_init,
    SYS_mknodat,
    SYS_io_uring_setup,
};

#define REFUSED_COUNT (sizeof refused / sizeof *refused)

/* Calls of the x32 ABI have this bit, and would be other numbers for the same. */
#define X32_CALLS 0x40000000U

/* The numbers are looked up one after the other: a few nanoseconds for a call that goes through. */
static void filter_calls(void)
{
    struct sock_filter code[5 + REFUSED_COUNT + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE_ARCHITECTURE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, REFUSED_COUNT + 1, 0),
    };
    unsigned short used = 5;
    for (size_t i = 0; i < REFUSED_COUNT; i++)
        code[used++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, refused[i],
                                                    (uint8_t)(REFUSED_COUNT - i), 0);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    code[used++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    struct sock_fprog program = {.len = used, .filter = code};
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

#else
static void filter_calls(void)
{
}
#endif

void privileges_drop(void)
{
    if (geteuid() != 0)
        return;
    drop_capabilities();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        filter_calls();
}
