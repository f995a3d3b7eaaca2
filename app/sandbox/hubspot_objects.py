"""The objects of HubSpot that the stand-in knows: their properties, and which values these take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)", re.ASCII)
"""No exponent: Atlas-Authority/marketing-automation 206 shows one refused."""

INDUSTRIES: Final = tuple(
    """
    ACCOUNTING AIRLINES_AVIATION ALTERNATIVE_DISPUTE_RESOLUTION ALTERNATIVE_MEDICINE ANIMATION APPAREL_FASHION
    ARCHITECTURE_PLANNING ARTS_AND_CRAFTS AUTOMOTIVE AVIATION_AEROSPACE BANKING BIOTECHNOLOGY BROADCAST_MEDIA
    BUILDING_MATERIALS BUSINESS_SUPPLIES_AND_EQUIPMENT CAPITAL_MARKETS CHEMICALS CIVIC_SOCIAL_ORGANIZATION
    CIVIL_ENGINEERING COMMERCIAL_REAL_ESTATE COMPUTER_NETWORK_SECURITY COMPUTER_GAMES COMPUTER_HARDWARE
    COMPUTER_NETWORKING COMPUTER_SOFTWARE INTERNET CONSTRUCTION CONSUMER_ELECTRONICS CONSUMER_GOODS CONSUMER_SERVICES
    COSMETICS DAIRY DEFENSE_SPACE DESIGN EDUCATION_MANAGEMENT E_LEARNING ELECTRICAL_ELECTRONIC_MANUFACTURING
    ENTERTAINMENT ENVIRONMENTAL_SERVICES EVENTS_SERVICES EXECUTIVE_OFFICE FACILITIES_SERVICES FARMING
    FINANCIAL_SERVICES FINE_ART FISHERY FOOD_BEVERAGES FOOD_PRODUCTION FUND_RAISING FURNITURE GAMBLING_CASINOS
    GLASS_CERAMICS_CONCRETE GOVERNMENT_ADMINISTRATION GOVERNMENT_RELATIONS GRAPHIC_DESIGN HEALTH_WELLNESS_AND_FITNESS
    HIGHER_EDUCATION HOSPITAL_HEALTH_CARE HOSPITALITY HUMAN_RESOURCES IMPORT_AND_EXPORT INDIVIDUAL_FAMILY_SERVICES
    INDUSTRIAL_AUTOMATION INFORMATION_SERVICES INFORMATION_TECHNOLOGY_AND_SERVICES INSURANCE INTERNATIONAL_AFFAIRS
    INTERNATIONAL_TRADE_AND_DEVELOPMENT INVESTMENT_BANKING INVESTMENT_MANAGEMENT JUDICIARY LAW_ENFORCEMENT LAW_PRACTICE
    LEGAL_SERVICES LEGISLATIVE_OFFICE LEISURE_TRAVEL_TOURISM LIBRARIES LOGISTICS_AND_SUPPLY_CHAIN LUXURY_GOODS_JEWELRY
    MACHINERY MANAGEMENT_CONSULTING MARITIME MARKET_RESEARCH MARKETING_AND_ADVERTISING
    MECHANICAL_OR_INDUSTRIAL_ENGINEERING MEDIA_PRODUCTION MEDICAL_DEVICES MEDICAL_PRACTICE MENTAL_HEALTH_CARE MILITARY
    MINING_METALS MOTION_PICTURES_AND_FILM MUSEUMS_AND_INSTITUTIONS MUSIC NANOTECHNOLOGY NEWSPAPERS
    NON_PROFIT_ORGANIZATION_MANAGEMENT OIL_ENERGY ONLINE_MEDIA OUTSOURCING_OFFSHORING PACKAGE_FREIGHT_DELIVERY
    PACKAGING_AND_CONTAINERS PAPER_FOREST_PRODUCTS PERFORMING_ARTS PHARMACEUTICALS PHILANTHROPY PHOTOGRAPHY PLASTICS
    POLITICAL_ORGANIZATION PRIMARY_SECONDARY_EDUCATION PRINTING PROFESSIONAL_TRAINING_COACHING PROGRAM_DEVELOPMENT
    PUBLIC_POLICY PUBLIC_RELATIONS_AND_COMMUNICATIONS PUBLIC_SAFETY PUBLISHING RAILROAD_MANUFACTURE RANCHING REAL_ESTATE
    RECREATIONAL_FACILITIES_AND_SERVICES RELIGIOUS_INSTITUTIONS RENEWABLES_ENVIRONMENT RESEARCH RESTAURANTS RETAIL
    SECURITY_AND_INVESTIGATIONS SEMICONDUCTORS SHIPBUILDING SPORTING_GOODS SPORTS STAFFING_AND_RECRUITING SUPERMARKETS
    TELECOMMUNICATIONS TEXTILES THINK_TANKS TOBACCO TRANSLATION_AND_LOCALIZATION TRANSPORTATION_TRUCKING_RAILROAD
    UTILITIES VENTURE_CAPITAL_PRIVATE_EQUITY VETERINARY WAREHOUSING WHOLESALE WINE_AND_SPIRITS WIRELESS
    WRITING_AND_EDITING
    """.split()
)


class HubSpotObject(msgspec.Struct, frozen=True, kw_only=True):
    """What HubSpot's reference says about one object."""

    type_id: str
    word: str
    """As `type_id`, in the words of refusals."""
    group: str
    """Of its properties."""
    own: frozenset[str]
    """Properties that every account has; there are some more."""
    modified: str
    """The property with the time of the last change."""
    emails: bool = False
    """Whether `email` must be an address, and one record's alone."""
    numbers: frozenset[str] = frozenset()
    options: Mapping[str, tuple[str, ...]] = {}
    """The values of a property that takes no others."""

    @property
    def unique(self) -> frozenset[str]:
        """The vendor's own properties with unique values."""
        return frozenset({"hs_object_id", "email"} if self.emails else {"hs_object_id"})

    @property
    def read_only(self) -> frozenset[str]:
        return frozenset({"hs_object_id", "createdate", self.modified})

    def described(self, name: str) -> dict[str, Any]:
        """The type of a property as `GET /crm/v3/properties` has it. The labels of options are made up."""
        if name in self.numbers:
            return {"type": "number", "fieldType": "number"}
        if name in self.options:
            options = [{"label": value.replace("_", " ").title(), "value": value} for value in self.options[name]]
            return {"type": "enumeration", "fieldType": "select", "options": options}
        return {"type": "string", "fieldType": "text"}

    def wrong_values(self, properties: Mapping[str, str]) -> list[dict[str, Any]]:
        """What HubSpot says about values that their property does not take, a detail each; empty ones clear.

        The words are those of Atlas-Authority/marketing-automation 206, gregorspan/csc-frodx 21 and HubSpot's change
        log of April 2025 (white space).
        """
        wrong = []
        for name, value in properties.items():
            if not value or (name not in self.numbers and name not in self.options):
                continue
            if value != value.strip():
                wrong.append(
                    (name, f'"{value}" includes leading or trailing whitespace.', "LEADING_TRAILING_WHITESPACE")
                )
            elif name in self.numbers and _NUMBER.fullmatch(value) is None:
                wrong.append((name, f"{value} was not a valid number.", "INVALID_INTEGER"))
            elif name in self.options and value not in self.options[name]:
                allowed = ", ".join(self.options[name])
                wrong.append((name, f"{value} was not one of the allowed options: [{allowed}]", "INVALID_OPTION"))
        return [detail(*each) | {"propertyValue": properties[each[0]]} for each in wrong]


def detail(name: str, words: str, code: str) -> dict[str, Any]:
    """One thing that speaks against a property, as HubSpot puts it into its message."""
    return {"isValid": False, "message": words, "error": code, "name": name, "localizedErrorMessage": words}


OBJECTS: Final = {
    "contacts": HubSpotObject(
        type_id="0-1",
        word="CONTACT",
        group="contactinformation",
        own=frozenset(
            """
            address annualrevenue city company country createdate date_of_birth degree email fax firstname gender
            hs_lead_status hs_object_id hs_persona industry jobtitle lastmodifieddate lastname lifecyclestage
            marital_status message mobilephone numemployees phone salutation school state twitterhandle website zip
            """.split()
        ),
        modified="lastmodifieddate",
        emails=True,
    ),
    "companies": HubSpotObject(
        type_id="0-2",
        word="COMPANY",
        group="companyinformation",
        own=frozenset(
            """
            about_us address address2 annualrevenue city country createdate description domain facebook_company_page
            founded_year hs_additional_domains hs_lastmodifieddate hs_lead_status hs_object_id hubspot_owner_id
            industry is_public lifecyclestage linkedin_company_page name numberofemployees phone state timezone
            total_money_raised twitterhandle type website zip
            """.split()
        ),
        modified="hs_lastmodifieddate",
        numbers=frozenset({"annualrevenue", "numberofemployees"}),
        options={"industry": INDUSTRIES},
    ),
}
"""`domain` has no unique values: companies are not deduplicated by it through the API (HGData/mk-node-hubspot 194), and
nothing is upserted by it. Of the properties with options `industry` alone is checked."""
