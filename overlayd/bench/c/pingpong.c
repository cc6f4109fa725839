/* How long a question and its answer take: one datagram there, the same one back, then the next.
 *
 *     pingpong answer PORT
 *     pingpong ask ADDRESS PORT SECONDS
 *
 * Who answers prints "ready" and goes on until standard input ends.  Who asks prints the number of answers, and the
 * 50th and 99th percentile of their round trips in nanoseconds.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    DATAGRAM = 64,           /* bytes, the smallest that measurements of networks are used to */
    ROUND_TRIPS_MAX = 1 << 20,
    WARM_UP = 100,           /* the first round trips, which find caches cold and neighbours unknown */
    QUIET_US = 100 * 1000    /* an answer that has not come after so long was lost */
};

static void fail(const char *what)
{
    fprintf(stderr, "pingpong: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * (int64_t)1000000000 + time.tv_nsec;
}

static int open_udp(void)
{
    struct timeval quiet = {.tv_usec = QUIET_US};
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    if (udp < 0 || setsockopt(udp, SOL_SOCKET, SO_RCVTIMEO, &quiet, sizeof quiet) < 0)
        fail("UDP socket");
    return udp;
}

static int answer(const char *port)
{
    char datagram[DATAGRAM];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    int udp = open_udp();
    if (bind(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail("bind");
    puts("ready");
    fflush(stdout);
    for (;;) {
        socklen_t length = sizeof address;
        ssize_t size = recvfrom(udp, datagram, sizeof datagram, 0, (struct sockaddr *)&address, &length);
        if (size >= 0)
            sendto(udp, datagram, (size_t)size, 0, (struct sockaddr *)&address, length);
        else if (errno != EAGAIN && errno != EINTR)
            fail("recvfrom");
        else if (poll(&input, 1, 0) > 0)
            return 0;
    }
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int ask(const char *peer, const char *port, const char *seconds)
{
    static int64_t took[ROUND_TRIPS_MAX];
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    int udp = open_udp();
    if (inet_pton(AF_INET, peer, &address.sin_addr) != 1) {
        fputs("pingpong: no such address\n", stderr);
        return 2;
    }
    if (connect(udp, (struct sockaddr *)&address, sizeof address) < 0)
        fail(peer);
    int64_t end = now() + (int64_t)(atof(seconds) * 1e9);
    size_t count = 0;
    for (uint32_t number = 0; now() < end && count < ROUND_TRIPS_MAX; number++) {
        char question[DATAGRAM] = {0}, reply[DATAGRAM];
        memcpy(question, &number, sizeof number);
        int64_t sent = now();
        if (send(udp, question, sizeof question, 0) < 0)
            continue; /* nobody answers yet */
        ssize_t size;
        do /* what comes late belongs to a question that was given up */
            size = recv(udp, reply, sizeof reply, 0);
        while (size > 0 && memcmp(reply, &number, sizeof number) != 0);
        if (size > 0 && number >= WARM_UP)
            took[count++] = now() - sent;
    }
    if (count == 0) {
        fputs("pingpong: no answer came\n", stderr);
        return 1;
    }
    qsort(took, count, sizeof *took, ascending);
    printf("%zu %lld %lld\n", count, (long long)took[count / 2], (long long)took[count * 99 / 100]);
    return 0;
}

int main(int count, char **argument)
{
    if (count == 3 && strcmp(argument[1], "answer") == 0)
        return answer(argument[2]);
    if (count == 5 && strcmp(argument[1], "ask") == 0)
        return ask(argument[2], argument[3], argument[4]);
    fputs("usage: pingpong answer PORT | pingpong ask ADDRESS PORT SECONDS\n", stderr);
    return 2;
}
