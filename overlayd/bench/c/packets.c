/* Small datagrams, as many as asked for, and the count of those that arrived.
 *
 *     packets receive PORT
 *     packets send ADDRESS PORT BYTES RATE SECONDS
 *
 * The receiver prints "ready", and once its standard input has ended and nothing more comes, how many datagrams it
 * got.  The sender sends so many a second, evenly (RATE 0: as fast as it can), and prints how many it sent and how
 * many seconds that took.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BATCH = 32,              /* datagrams a system call: the path is to be measured, not the sender */
    DATAGRAM_MAX = 1472,
    PAUSE_NS = 50 * 1000,    /* a sender ahead of its time sleeps so long */
    QUIET_US = 100 * 1000,   /* a receiver that hears nothing for so long looks whether it may end */
    RECEIVE_BUFFER = 4 << 20 /* bytes, so that no datagram is lost while the receiver waits for a processor */
};

static void fail(const char *what)
{
    fprintf(stderr, "packets: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void prepare(struct mmsghdr *messages, struct iovec *parts, char (*datagrams)[DATAGRAM_MAX], size_t size)
{
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){datagrams ? datagrams[i] : NULL, size};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
    }
}

static int has_ended(int fd)
{
    struct pollfd input = {fd, POLLIN, 0};
    return poll(&input, 1, 0) > 0;
}

static int receive(const char *port)
{
    static char datagrams[BATCH][DATAGRAM_MAX];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    struct timeval quiet = {.tv_usec = QUIET_US};
    int buffer = RECEIVE_BUFFER, udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || bind(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail("UDP socket");
    if (setsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet) < 0)
        fail("SO_RCVTIMEO");
    /* Without the privilege to pass the system's limit, the limit has to do. */
    if (setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0 &&
        setsockopt(udp, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) < 0)
        fail("SO_RCVBUF");
    prepare(messages, parts, datagrams, DATAGRAM_MAX);
    puts("ready");
    fflush(stdout);
    unsigned long received = 0;
    for (;;) {
        int got = recvmmsg(udp, messages, BATCH, MSG_WAITFORONE, NULL);
        if (got > 0)
            received += (unsigned long)got;
        else if (errno != EAGAIN && errno != EINTR)
            fail("recvmmsg");
        else if (has_ended(STDIN_FILENO))
            break;
    }
    printf("%lu\n", received);
    return 0;
}

static int send_evenly(char **argument)
{
    static char zeros[1][DATAGRAM_MAX];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argument[1]))};
    size_t size = (size_t)atoi(argument[2]);
    double rate = atof(argument[3]), seconds = atof(argument[4]);
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (inet_pton(AF_INET, argument[0], &address.sin_addr) != 1 || size > DATAGRAM_MAX) {
        fputs("packets: no such address, or too large a datagram\n", stderr);
        return 2;
    }
    if (udp < 0 || connect(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail("UDP socket");
    prepare(messages, parts, NULL, size);
    for (int i = 0; i < BATCH; i++)
        parts[i].iov_base = zeros[0];
    unsigned long sent = 0;
    double begun = now(), passed;
    while ((passed = now() - begun) < seconds) {
        double due = rate > 0 ? passed * rate - (double)sent : BATCH;
        if (due < 1) {
            nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
            continue;
        }
        int got = sendmmsg(udp, messages, due < BATCH ? (unsigned)due : BATCH, 0);
        if (got > 0)
            sent += (unsigned long)got;
        else if (errno != ENOBUFS && errno != ECONNREFUSED && errno != EINTR)
            fail("sendmmsg");
    }
    printf("%lu %.6f\n", sent, passed);
    return 0;
}

int main(int count, char **argument)
{
    if (count == 3 && strcmp(argument[1], "receive") == 0)
        return receive(argument[2]);
    if (count == 7 && strcmp(argument[1], "send") == 0)
        return send_evenly(argument + 2);
    fputs("usage: packets receive PORT | packets send ADDRESS PORT BYTES RATE SECONDS\n", stderr);
    return 2;
}
