from prefect import flow, get_run_logger, task


@task(retries=2)
def compose(name: str) -> str:
    return f"Hello, {name}!"


@flow
def greet(names: list[str]):
    logger = get_run_logger()
    for name in names:
        logger.info(compose(name))
