-- Prints what wrk counted as one line of JSON, after wrk's own report. A `request` function, which
-- costs wrk CPU for each request, is there only where BENCH_IDS asks for one.
local body = os.getenv("BENCH_BODY")
if body then
  wrk.method = "POST"
  wrk.body = body
  wrk.headers["Content-Type"] = "application/json"
end

local ids = tonumber(os.getenv("BENCH_IDS") or "")
if ids then
  function request()
    return wrk.format(nil, wrk.path .. math.random(ids))
  end
end

function done(summary, latency, requests)
  io.write(string.format(
    '{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bad_statuses": %d, "socket_errors": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    summary.errors.status,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
